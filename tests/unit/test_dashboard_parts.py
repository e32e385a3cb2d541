"""The pure parts of the dashboard: documents, queries of lists, timelines, lengths of time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.dashboard.documents import MOST_CHARACTERS, document
from receiver.dashboard.list_query import ListQuery, canonical
from receiver.dashboard.static_files import static_url
from receiver.dashboard.timeline import WIDTH, timeline
from receiver.dashboard.times import duration
from receiver.dashboard.visit import local_path
from receiver.domain.representations import iso

START = datetime(2026, 1, 1, tzinfo=UTC)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def at(seconds: float) -> str:
    return str(iso(START + timedelta(seconds=seconds)))


def event(seconds: float, kind: str, status: str, **fields: Any) -> dict[str, Any]:
    common = {"source": "webhook", "provider_status": None, "retry_at": None}
    return {"type": kind, "created_at": at(seconds), "data": {"status": status}, **common, **fields}


@given(_JSON)
def test_a_document_never_has_markup_or_hidden_characters_of_its_own(value: Any) -> None:
    markup = str(document(value).markup)
    assert all(letter.isprintable() or letter in "\n\u200c\u200d" or letter.isspace() for letter in markup)
    tags = {part.split(">")[0].split(" ")[0] for part in markup.split("<")[1:]}
    assert tags <= {"span", "/span", "a", "/a"}


@pytest.mark.parametrize(
    ("value", "is_link"),
    [
        ("https://example.com/a.png?b=1&c=2", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("https://a\u202eb.com/", False),
        ("see https://example.com", False),
    ],
)
def test_only_http_and_https_become_links(value: str, is_link: bool) -> None:
    assert ("<a " in document({"url": value}).markup) == is_link


def test_a_large_document_is_cut_and_says_so() -> None:
    shown = document({"first": "A" * 10_000_000, "many": list(range(100_000)), "last": "end"})
    assert (shown.is_cut, "end" in shown.markup, len(shown.markup) < 10 * MOST_CHARACTERS) == (True, True, True)
    assert document({"a": "b"}).is_cut is False


def test_the_query_of_a_form_becomes_that_of_the_api() -> None:
    form = [
        ("status", ""),
        ("metadata_key", "a b"),
        ("metadata_value", "c=d"),
        ("metadata[a b]", "old"),
        ("model", " m "),
    ]
    assert canonical(form) == [("model", "m"), ("metadata[a b]", "c=d")]
    columns = [("columns", "model"), ("columns", "took")]
    assert canonical(columns, ["model", "took"]) == []
    assert canonical(columns, ["model"]) == columns


def test_another_filter_begins_at_the_first_page() -> None:
    query = ListQuery("/tasks", [("status", "failed"), ("cursor", "x")], lambda path, pairs: f"{path}{pairs}")
    assert query.having("model", "m") == "/tasks[('status', 'failed'), ('model', 'm')]"
    assert query.without("status") == "/tasks[]"
    assert query.next_page("y") == "/tasks[('status', 'failed'), ('cursor', 'y')]"


@pytest.mark.parametrize("text", ["", "tasks", "//x", "/\\x", "https://x", "/a\nb", "/a\tb"])
def test_what_may_lead_elsewhere_is_no_local_path(text: str) -> None:
    assert local_path(text) is None


def test_a_timeline_has_each_state_as_long_as_it_lasted_and_the_waits_between() -> None:
    task = {"created_at": at(0), "ended_at": at(9)}
    events = [
        event(0, "task.created", "queued"),
        event(1, "task.submitted", "pending"),
        event(4, "task.updated", "processing"),
        event(10, "task.completed", "completed"),
    ]
    shown = timeline(task, events, [], START + timedelta(hours=1))
    assert [(bar.kind, bar.x, bar.width) for bar in shown.lanes[0].bars] == [
        ("queued", 0, 100),
        ("pending", 100, 300),
        ("processing", 400, 600),
    ]
    assert [step.wait for step in shown.steps] == [0, 1, 3, 6]
    assert shown.seconds == 10


def test_the_timeline_of_an_open_task_ends_now() -> None:
    shown = timeline({"created_at": at(0), "ended_at": None}, [event(0, "task.created", "queued")], [], START)
    (bar,) = shown.lanes[0].bars
    assert (shown.is_open, bar.kind, bar.x + bar.width) == (True, "queued", WIDTH)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (-1, "0 ms"),
        (0.25, "250 ms"),
        (59.94, "59.9 s"),
        (61, "1 min 01 s"),
        (3660, "1 h 01 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_length_of_time_has_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_static_file_that_is_not_there_is_an_error_of_the_template() -> None:
    with pytest.raises(KeyError):
        static_url("no-such.css")
