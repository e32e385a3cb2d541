"""A run's steps as a graph."""

from typing import Any

from receiver.cli.run_graph import as_document, as_dot, as_mermaid, as_rows
from receiver.domain.run_levels import levels


def step(name: str, *after: str, status: str = "pending") -> dict[str, Any]:
    return {"id": name, "action": "m:t", "status": status, "depends_on": list(after), "job_id": None}


DIAMOND = [
    step("d", "b", "c"),
    step("a", status="completed"),
    step("b", "a", status="failed"),
    step("c", "a"),
    step("e", "d", "a"),
]
RUN = {"id": "r-1", "status": "in_progress", "steps": DIAMOND}


def test_each_step_is_below_all_that_it_depends_on() -> None:
    assert [[each["id"] for each in level] for level in levels(DIAMOND)] == [["a"], ["b", "c"], ["d"], ["e"]]
    assert as_rows(DIAMOND)[0] == ("1", "a", "m:t", "completed", "-")
    assert as_rows(DIAMOND)[3] == ("3", "d", "m:t", "pending", "b, c")


def test_a_graph_that_is_none_is_shown_nevertheless() -> None:
    assert [len(level) for level in levels([step("a", "b"), step("b", "a"), step("c", "gone")])] == [3]
    assert levels([]) == []


def test_the_document_has_every_edge_once() -> None:
    document = as_document(RUN)
    assert document["edges"] == [["b", "d"], ["c", "d"], ["a", "b"], ["a", "c"], ["d", "e"], ["a", "e"]]
    assert document["levels"] == [["a"], ["b", "c"], ["d"], ["e"]]


def test_no_id_of_a_step_is_read_as_part_of_the_language() -> None:
    name = 'x"]; y -> z; {<b>\\\n'
    run = {**RUN, "steps": [step(name, status="failed"), step("next", name)]}
    dot, mermaid = as_dot(run), as_mermaid(run)
    assert r'"x\"]; y -> z; {<b>\\\n" -> "next";' in dot
    assert dot.count("\n") == 6
    assert '  s0["x#34;#93;#59; y -#62; z#59; #123;#60;b#62;#92;#92;n<br/>m:t<br/>failed"]:::failed' in mermaid
    assert "  s0 --> s1" in mermaid
