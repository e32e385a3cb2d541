"""A run's graph and its bars over time, as the dashboard draws them."""

import re
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.dashboard.gantt import Times, gantt, ticks
from receiver.dashboard.run_graph import LONGEST_LABEL, run_graph, shortened

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def step(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    usual = {"status": "completed", "action": "m:t", "job_id": f"task-{name}", "started_at": None, "completed_at": None}
    return {"id": name, "depends_on": list(after), "attempts": [], **usual, **fields}


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return 1 to 10 steps in any order, of which each depends on any of those before it."""
    count, bits = draw(st.integers(1, 10)), draw(st.integers(0, 2**45 - 1) | st.just(2**45 - 1))
    names = [f"step-{number}" * draw(st.sampled_from((1, 8))) for number in range(count)]
    pairs = {pair: bits >> place & 1 for place, pair in enumerate(combinations(range(count), 2))}
    steps = [step(name, *(names[a] for a in range(at) if pairs[a, at])) for at, name in enumerate(names)]
    return draw(st.permutations(steps))


@settings(max_examples=40)
@given(graphs())
def test_steps_of_any_graph_stand_apart_within_the_picture_and_each_line_leads_on(steps: list[dict[str, Any]]) -> None:
    graph = run_graph(steps)
    for at, node in enumerate(graph.nodes):
        assert 0 <= node.x <= graph.width - graph.node_width
        assert 0 <= node.y <= graph.height - graph.node_height
        for other in graph.nodes[at + 1 :]:
            is_beside = abs(node.x - other.x) >= graph.node_width
            assert is_beside or abs(node.y - other.y) >= graph.node_height
    assert len(graph.edges) == sum(len(each["depends_on"]) for each in steps)
    for edge in graph.edges:
        points = [float(number) for number in re.findall(r"-?[\d.]+", edge.line)]
        across, down = points[::2], points[1::2]
        assert down == sorted(down) or across == sorted(across)
        assert 0 <= min(across) <= max(across) <= graph.width
        assert 0 <= min(down) <= max(down) <= graph.height


@settings(max_examples=40)
@given(graphs())
def test_no_line_to_a_step_further_below_crosses_a_step(steps: list[dict[str, Any]]) -> None:
    graph = run_graph(steps)
    for edge in graph.edges:
        for part in re.findall(r"([\d.-]+) ([\d.-]+)L([\d.-]+) ([\d.-]+)", edge.line):
            left, top, right, bottom = map(float, part)
            for node in graph.nodes:
                apart = (
                    right <= node.x or left >= node.x + graph.node_width,
                    bottom <= node.y or top >= node.y + graph.node_height,
                )
                assert any(apart), (edge.title, node.step["id"])


def test_what_is_wide_stands_in_columns_and_what_is_deep_in_rows() -> None:
    wide = run_graph([step("a"), *(step(f"b{n}", "a") for n in range(8)), step("c", *(f"b{n}" for n in range(8)))])
    assert wide.nodes[0].x < wide.nodes[1].x < wide.nodes[-1].x
    deep = run_graph([step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(10)])
    assert [node.x for node in deep.nodes] == [deep.nodes[0].x] * 10


def test_a_long_id_keeps_its_beginning_and_its_end() -> None:
    assert shortened("localize_german") == "localize_german"
    assert shortened("a" * 32 + "b" * 32) == "a" * 9 + "…" + "b" * 8
    assert len(shortened("x" * 64)) == LONGEST_LABEL


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def task(name: str, begin: float, end: float | None, **fields: Any) -> dict[str, Any]:
    usual = {"task_id": f"task-{name}", "step": name, "status": "completed", "attempt": 1}
    return {**usual, "created_at": at(begin), "ended_at": None if end is None else at(end), **fields}


def attempt(number: int, status: str, *times: float | None) -> dict[str, Any]:
    names = ("submitted_at", "started_at", "ended_at")
    return {
        "attempt": number,
        "status": status,
        **{n: None if t is None else at(t) for n, t in zip(names, times, strict=False)},
    }


def test_bars_are_waits_and_attempts_on_one_axis() -> None:
    first = step("a", attempts=[attempt(1, "failed", 0, 1, 2), attempt(2, "completed", 4, 4, 5)])
    second = step("b", "a", status="processing", attempts=[attempt(1, "processing", 5, 6, None)])
    third = step("c", "b", status="pending", job_id=None)
    tasks = [task("a", 0, 5, attempt=2), task("b", 5, None, status="processing")]
    picture = gantt([first, second, third], tasks, Times(at(0), None), START + timedelta(seconds=10))
    bars = [[(bar.kind, bar.x, bar.width) for bar in lane.bars] for lane in picture.lanes]
    assert bars == [
        [("queued", 0, 10), ("failed", 10, 10), ("wait", 20, 20), ("completed", 40, 10)],
        [("wait", 0, 50), ("queued", 50, 10), ("processing", 60, 40)],
        [("wait", 0, 100)],
    ]
    assert [lane.note for lane in picture.lanes] == ["5.0 s · 2 attempts", "5.0 s", ""]
    assert (picture.is_open, picture.seconds, picture.lanes[1].waited) == (True, 10, 5)


def test_earlier_tasks_of_a_step_stay_and_what_is_purged_has_whole_seconds() -> None:
    retried = step("a", attempts=[attempt(1, "completed", 6, 6, 8)])
    purged = step("b", started_at=int(START.timestamp()) + 2, completed_at=int(START.timestamp()) + 4)
    tasks = [task("a", 0, 2, task_id="before", status="failed"), task("a", 6, 8)]
    picture = gantt([retried, purged], tasks, Times(at(0), at(8)), START + timedelta(days=9))
    assert [[(bar.kind, bar.x, bar.width) for bar in lane.bars] for lane in picture.lanes] == [
        [("failed", 0, 25), ("completed", 75, 25)],
        [("completed", 25, 25)],
    ]


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (0.1, ["0", "20 ms", "40 ms", "60 ms", "80 ms"]),
        (1.8, ["0", "0.5 s", "1.0 s", "1.5 s"]),
        (11, ["0", "2 s", "4 s", "6 s", "8 s", "10 s"]),
        (150, ["0", "30 s", "60 s", "90 s", "120 s"]),
        (1500, ["0", "5 min", "10 min", "15 min", "20 min"]),
        (20_000, ["0", "1 h", "2 h", "3 h", "4 h", "5 h"]),
        (30 * 86_400, ["0", "5 d", "10 d", "15 d", "20 d", "25 d"]),
    ],
)
def test_an_axis_has_a_few_round_times(seconds: float, labels: list[str]) -> None:
    assert [tick.label for tick in ticks(seconds)][: len(labels)] == labels
    assert all(0 <= tick.x <= 97 for tick in ticks(seconds))
    assert len(ticks(seconds)) <= 7
