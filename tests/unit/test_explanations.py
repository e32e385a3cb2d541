"""Everything open names its next act, with a time or what it waits for; everything ended says why it ended."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from models import RUN_TERMINAL, TERMINAL, DeliveryStatus, DisabledReason, StepStatus, Submission, TaskStatus
from receiver.domain.advance import UNDER_WAY
from receiver.domain.delivery_explanations import DeliveryFacts, explain_delivery
from receiver.domain.explanations import Act, Explanation, native_explanation
from receiver.domain.run_explanations import explain_run
from receiver.domain.schedules import PollSchedule
from receiver.domain.task_explanations import TaskFacts, explain_task
from tests.unit.test_advance_properties import RANDOMS, RunSimulation, Scenario, scenarios

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPEN = sorted(set(TaskStatus) - TERMINAL)
SCHEDULE = PollSchedule(first=15, longest=300, timeout=86400)
ERRORS = st.sampled_from([None, {"code": "timed_out", "message": "silence"}, {"code": 500, "message": "sorry"}])
Row = dict[str, Any]


def moments(first: int = -200_000, last: int = 200_000) -> st.SearchStrategy[datetime]:
    return st.integers(first, last).map(lambda seconds: NOW + timedelta(seconds=seconds))


FACTS = st.builds(
    TaskFacts,
    now=st.just(NOW),
    schedule=st.just(SCHEDULE),
    unknown_seconds=st.just(600.0),
    failed_seconds=st.just(10.0),
    missing_polls=st.just(3),
    calls_per_second=st.just(10.0),
    paused_seconds=st.sampled_from([0.0, 0.5, 40.0]),
    key_refusal=st.sampled_from([None, "HTTP 401"]),
    queued_before=st.integers(0, 1000),
    waits_for=st.sampled_from([None, "another"]),
)


@st.composite
def open_tasks(draw: st.DrawFn) -> Row:
    """Rows of tasks that have not ended, in every combination of states that tracking writes."""
    submission = draw(st.sampled_from(sorted(set(Submission) - {Submission.REFUSED})))
    is_accepted = submission == Submission.ACCEPTED
    sent_at = None if submission == Submission.WAITING else draw(moments(last=0))
    missing = draw(st.integers(0, 3)) if submission != Submission.WAITING else 0
    return {
        "uid": "mine",
        "status": draw(st.sampled_from(OPEN)) if is_accepted else TaskStatus.QUEUED,
        "submission": submission,
        "provider_task_id": "theirs" if is_accepted else None,
        "attempt": draw(st.integers(1, 3)),
        "max_attempts": 3,
        "poll_count": draw(st.integers(0, 5)),
        "missing_count": missing,
        "missing_since": draw(moments(last=0)) if missing else None,
        "exception_count": draw(st.integers(0, 2)),
        "words": draw(st.sampled_from([None, ["dreaming"]])),
        "error": draw(ERRORS),
        "revision": "",
        "run_uid": None,
        "cancel_requested_at": draw(st.none() | moments(last=0)),
        "submitted_at": sent_at,
        "last_update_at": draw(moments(last=0)),
        "updated_at": draw(moments(last=0)),
        "ended_at": None,
        "due_at": draw(moments()),
        "leased": draw(st.booleans()),
    }


@st.composite
def ended_tasks(draw: st.DrawFn) -> Row:
    status = draw(st.sampled_from(sorted(TERMINAL)))
    failed = status == TaskStatus.FAILED
    return {
        **draw(open_tasks()),
        "status": status,
        "error": {"code": "timed_out", "message": "silence"} if failed else None,
        "revision": draw(st.sampled_from(["", "9.0.", "9.2.abc"])),
        "due_at": draw(st.none() | moments()) if failed else None,
        "ended_at": NOW,
    }


def says_what_is_next(explanation: Explanation) -> None:
    assert explanation.next.act != Act.NONE
    assert explanation.next.at is not None or explanation.blocked_by
    assert explanation.next.at is None or explanation.next.at >= NOW
    assert explanation.reason
    assert native_explanation("task_id", "mine", explanation, NOW)["next"]["action"] == explanation.next.act


@given(open_tasks(), FACTS)
def test_every_open_task_names_its_next_act_with_a_time_or_what_it_waits_for(task: Row, facts: TaskFacts) -> None:
    explanation = explain_task(task, facts)
    says_what_is_next(explanation)
    if task["cancel_requested_at"] is not None and task["provider_task_id"]:
        assert explanation.next.act == Act.RECALL
    elif task["cancel_requested_at"] is None:
        assert explanation.next.act in _acts_of(task)
    if facts.paused_seconds > 1 and explanation.next.act in (Act.SUBMIT, Act.POLL, Act.SEARCH, Act.RECALL):
        assert explanation.next.at is not None
        assert explanation.next.at >= NOW + timedelta(seconds=facts.paused_seconds)
        assert "provider_paused" in {each.code for each in explanation.blocked_by}


def _acts_of(task: Row) -> tuple[Act, ...]:
    """Return what `receiver.tracking.poll` may do with a task in this state."""
    match task["submission"]:
        case Submission.WAITING:
            return (Act.SUBMIT,) if task["attempt"] == 1 else (Act.RETRY,)
        case Submission.ACCEPTED:
            return (Act.POLL, Act.GIVE_UP)
        case Submission.SENDING if task["leased"] and task["due_at"] > NOW:
            return (Act.AWAIT_ANSWER,)
        case _:
            return (Act.SEARCH, Act.GIVE_UP)


@given(ended_tasks(), FACTS)
def test_every_ended_task_says_why_it_ended_and_what_may_still_change_it(task: Row, facts: TaskFacts) -> None:
    explanation = explain_task(task, facts)
    assert explanation.reason
    assert (explanation.next.act == Act.LOOK_AGAIN) is (task["due_at"] is not None)
    assert ("retry" in explanation.may) is (task["status"] != TaskStatus.COMPLETED)
    if task["status"] == TaskStatus.FAILED:
        assert "timed_out" in explanation.reason
        assert explanation.facts["corrections"] == ["completed"]


def test_a_lost_create_is_given_up_by_the_look_that_the_search_takes_for_the_last() -> None:
    facts = TaskFacts(
        now=NOW, schedule=SCHEDULE, unknown_seconds=600, failed_seconds=10, missing_polls=3, calls_per_second=10
    )
    began = NOW - timedelta(seconds=590)

    def next_act(due: int, looks: int) -> Act:
        row = {"submission": Submission.UNKNOWN, "submitted_at": began, "missing_count": looks, "leased": False}
        row |= {"missing_since": began if looks else None, "due_at": NOW + timedelta(seconds=due)}
        task = {**BLANK, **row}
        return explain_task(task, facts).next.act

    assert next_act(5, 3) == Act.SEARCH  # 595 s after the call
    assert next_act(10, 3) == Act.GIVE_UP
    assert next_act(10, 0) == Act.SEARCH  # the first complete look ends nothing


BLANK: Row = {
    **dict.fromkeys(("error", "words", "provider_task_id", "run_uid", "cancel_requested_at", "ended_at")),
    **{"status": TaskStatus.QUEUED, "attempt": 1, "max_attempts": 1, "poll_count": 1, "exception_count": 0},
    **{"revision": "", "last_update_at": NOW, "updated_at": NOW},
}


@given(scenarios(), RANDOMS, open_tasks(), FACTS)
def test_every_open_run_names_its_next_act_and_every_ended_one_says_why(
    scenario: Scenario, random: Random, task: Row, facts: TaskFacts
) -> None:
    simulation = RunSimulation(*scenario, random).partially()
    steps: list[Row] = [
        {
            "name": step.id,
            "status": simulation.statuses[step.id],
            "task_uid": step.id if simulation.statuses[step.id] != StepStatus.PENDING else None,
            "spec": {"step": {"depends_on": list(step.depends_on)}},
            "error": None,
        }
        for step in simulation.graph.steps
    ]
    explained = explain_task(task, facts)
    tasks = {step["name"]: explained for step in steps if step["status"] in UNDER_WAY}
    run = {"status": simulation.status, "created_at": NOW, "updated_at": NOW, "ended_at": None}
    explanation = explain_run(run, steps, tasks, NOW)
    if run["status"] in RUN_TERMINAL:
        assert (explanation.next.act, bool(explanation.reason)) == (Act.NONE, True)
        return
    says_what_is_next(explanation)
    blocked = {each.details["step"] for each in explanation.blocked_by}
    assert blocked == {step["name"] for step in steps if step["status"] in {StepStatus.PENDING, *UNDER_WAY}}


@st.composite
def deliveries(draw: st.DrawFn) -> Row:
    status = draw(st.sampled_from(sorted(DeliveryStatus)))
    is_pending, is_active = status == DeliveryStatus.PENDING, draw(st.booleans())
    attempt = draw(st.integers(0 if is_pending else 1, 3))
    return {
        "status": status,
        "attempt": attempt,
        "schedule_from": 0,
        "leased": draw(st.booleans()) and is_active and attempt > 0,
        "due_at": draw(moments()) if is_pending and is_active else None,
        "created_at": NOW,
        "settled_at": None if is_pending else NOW,
        "webhook_uid": draw(st.sampled_from([None, "w"])),
        "status_code": draw(st.sampled_from([None, 200, 500])),
        "error": None,
        "is_active": is_active,
        "deleted_at": None if is_active else draw(st.sampled_from([None, NOW])),
        "disabled_reason": None if is_active else draw(st.sampled_from([None, *DisabledReason])),
        "failing_since": draw(st.sampled_from([None, NOW])),
        "rate_limit": None,
        "max_in_flight": None,
    }


@given(deliveries(), st.integers(0, 1000), st.sampled_from([None, "earlier"]))
def test_every_pending_delivery_names_its_next_act_and_every_settled_one_says_why(
    delivery: Row, before: int, earlier: str | None
) -> None:
    facts = DeliveryFacts(now=NOW, delays=(0, 5, 300, 1800), queued_before=before, earlier=earlier)
    explanation = explain_delivery(delivery, facts)
    if delivery["status"] != DeliveryStatus.PENDING:
        assert explanation.next.act == Act.NONE
        assert explanation.reason
        assert ("retry" in explanation.may) is delivery["is_active"]
        return
    says_what_is_next(explanation)
    codes = {each.code for each in explanation.blocked_by}
    assert ("webhook_disabled" in codes) is not delivery["is_active"]
    assert _left(explanation) == 4 - (delivery["attempt"] - delivery["leased"])


def _left(explanation: Explanation) -> Any:
    facts: Mapping[str, Any] = explanation.facts
    return facts["attempts_left"]
