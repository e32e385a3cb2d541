"""Explanations as pages show them: every time with how far away it is, ids as links, and when the page looks again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from receiver.dashboard.explained import shown_explanation
from receiver.domain.representations import iso

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> str:
    return str(iso(NOW + timedelta(seconds=seconds)))


def explanation(seconds: float | None, *blocked_by: dict[str, Any], **facts: Any) -> dict[str, Any]:
    time = None if seconds is None else at(seconds)
    act = {"action": "poll", "at": time, "text": "the provider is asked about it"}
    return {"reason": "it waits", "next": act, "blocked_by": blocked_by, "may": ["cancel"], "facts": facts}


@pytest.mark.parametrize(
    ("seconds", "wait", "again"),
    [
        (None, "", None),
        (0, "now", 0.5),
        (2.2, "in 3 s", 2.7),
        (12, "in 12 s", 5),
        (90, "in 1 min 30 s", 30),
        (-5, "5 s ago", 0.5),
    ],
)
def test_the_next_act_has_its_time_and_the_page_looks_again_in_time(
    seconds: float | None, wait: str, again: float | None
) -> None:
    shown = shown_explanation(explanation(seconds), NOW)
    assert (shown.reason, shown.next) == ("It waits", "The provider is asked about it")
    assert (shown.wait, shown.again, shown.at is None) == (wait, again, seconds is None)


def test_what_it_waits_for_has_its_times_ids_and_the_numbers_that_its_text_does_not_say() -> None:
    shown = shown_explanation(
        explanation(
            1,
            {"code": "referenced_task", "text": "its input names task t-1", "task_id": "t-1"},
            {"code": "retry_backoff", "text": "the backoff of 3", "until": at(30), "tries": 3, "count": 7},
        ),
        NOW,
    )
    first, second = shown.blocked_by
    assert [(each.label, each.value, each.path) for each in first.details] == [("task", "t-1", "/tasks/t-1")]
    assert [(each.label, each.value, each.at) for each in second.details] == [
        ("until", "in 30 s", at(30)),
        ("count", "7", None),
    ]


def test_what_follows_otherwise_is_said_of_open_tasks_and_corrections_of_ended_ones() -> None:
    shown = shown_explanation(explanation(1, times_out_at=at(120), must_change_until=None), NOW)
    assert [(time, words) for _, time, words in shown.bounds] == [(at(120), "in 2 min 00 s")]
    ended = shown_explanation(explanation(None, corrections=["completed"]), NOW)
    assert ["completed after all" in text for text, _, _ in ended.bounds] == [True]
