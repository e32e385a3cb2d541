"""Events and times as the API shows them, whichever version stored them."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import EventType
from receiver.domain.representations import (
    cloudevents_body,
    iso,
    native_event,
    pi_body,
    piapi_body,
    standard_body,
)

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
SHOWN_NOW = "2026-01-31T09:30:00.000000Z"
TASK: dict[str, Any] = {
    **dict.fromkeys(("progress", "error", "logs", "metadata", "config", "run_uid", "step", "meta", "detail", "words")),
    "uid": "the-task",
    "model": "kling",
    "task_type": "video_generation",
    "status": "completed",
    "input": {},
    "output": {"video_url": "https://example.com/v.mp4"},
    "attempt": 1,
    "max_attempts": 1,
    "submission": "accepted",
    "provider": "piapi",
    "provider_task_id": "pt-1",
    "created_at": NOW,
    "updated_at": NOW,
    "started_at": NOW,
    "ended_at": NOW,
}


def event(type: str, snapshot: dict[str, Any], run_uid: str | None = None) -> dict[str, Any]:
    row = {"id": 7, "uid": "the-event", "type": type, "snapshot": snapshot, "created_at": NOW, "run_uid": run_uid}
    return {**row, "request_id": None}


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (NOW, SHOWN_NOW),
        (NOW.replace(microsecond=5), "2026-01-31T09:30:00.000005Z"),
        (NOW.astimezone(timezone(timedelta(hours=8))), SHOWN_NOW),
        ("2026-01-31T09:30:00+00:00", SHOWN_NOW),
        ("2026-01-31T17:30:00.5+08:00", "2026-01-31T09:30:00.500000Z"),
        ("2026-01-31T09:30:00.333962391Z", "2026-01-31T09:30:00.333962Z"),
        ("2026-01-31T09:30:00Z", SHOWN_NOW),
        (None, None),
    ],
)
def test_a_time_has_one_form(moment: datetime | str | None, shown: str | None) -> None:
    assert iso(moment) == shown


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2))
def test_shown_times_sort_as_times_and_lose_nothing(moments: list[datetime]) -> None:
    shown = [str(iso(moment)) for moment in moments]
    assert [datetime.fromisoformat(each) for each in sorted(shown)] == sorted(moments)
    assert {len(each) for each in shown} == {27}


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_is_shown_alike_from_a_row_and_from_a_stored_snapshot(moment: datetime) -> None:
    stored = orjson.loads(orjson.dumps(moment.astimezone(UTC)))
    by_python = moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert iso(moment) == iso(stored) == by_python


def test_the_times_of_a_stored_snapshot_are_shown_in_the_one_form() -> None:
    snapshot = {
        "status": "failed",
        "attempt": 1,
        "started_at": "2026-01-31T09:30:00+00:00",
        "ended_at": "2026-01-31T09:30:00.123456789Z",
        "retry_at": "2026-01-31T09:30:00.5+00:00",
        "meta": {"created_at": "2024-09-25T07:40:08.333962391Z"},
    }
    shown = native_event(TASK, event(EventType.TASK_FAILED, snapshot))
    assert (shown["data"]["started_at"], shown["data"]["ended_at"]) == (SHOWN_NOW, "2026-01-31T09:30:00.123456Z")
    assert shown["retry_at"] == "2026-01-31T09:30:00.500000Z"
    assert "333962391" not in str(shown)


def test_an_event_has_the_same_fields_whatever_it_is_about() -> None:
    run = event(EventType.RUN_COMPLETED, {"id": "the-run", "status": "completed"}, "the-run")
    disabled = event(EventType.WEBHOOK_DISABLED, {"webhook": {"id": "w", **_WEBHOOK}, "reason": "gone"})
    shown = [
        native_event(TASK, event(EventType.TASK_COMPLETED, {"status": "completed"})),
        native_event(None, run),
        native_event(None, disabled),
    ]
    assert len({tuple(each) for each in shown}) == 1
    assert [(each["task_id"], each["run_id"]) for each in shown] == [
        ("the-task", None),
        (None, "the-run"),
        (None, None),
    ]
    assert [each["data"].get("object") for each in shown] == ["task", "run", None]


_WEBHOOK = {"failing_since": None, "created_at": "2026-01-31T09:30:00Z", "updated_at": "2026-01-31T09:30:00.5Z"}


def test_the_webhook_of_an_earlier_version_s_event_has_today_s_times() -> None:
    shown = native_event(None, event(EventType.WEBHOOK_DISABLED, {"webhook": _WEBHOOK, "reason": "gone"}))
    assert shown["data"] == {
        "webhook": {"failing_since": None, "created_at": SHOWN_NOW, "updated_at": "2026-01-31T09:30:00.500000Z"},
        "reason": "gone",
    }


def test_a_correction_names_the_event_that_it_replaces_in_every_format() -> None:
    corrected = event(EventType.TASK_COMPLETED, {"status": "completed", "corrects": "the-failure"})
    assert native_event(TASK, corrected)["data"]["corrects"] == "the-failure"
    assert standard_body(TASK, corrected)["data"]["corrects"] == "the-failure"
    assert cloudevents_body(TASK, corrected, "urn:x")["data"]["corrects"] == "the-failure"
    assert pi_body(TASK, corrected)["data"]["corrects"] == "the-failure"
    assert piapi_body(TASK, corrected)["data"]["meta"]["corrects"] == "the-failure"


def test_what_is_no_correction_does_not_name_one() -> None:
    end = event(EventType.TASK_COMPLETED, {"status": "completed"})
    assert "corrects" not in native_event(TASK, end)["data"]
    assert "corrects" not in pi_body(TASK, end)["data"]
    assert "corrects" not in piapi_body(TASK, end)["data"]["meta"]
