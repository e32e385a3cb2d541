"""A provider's history has the same end in any order and with repeats, and no event is written twice."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from models import TERMINAL, EventType, Submission, TaskStatus
from receiver.domain.decisions import ENDING, Decision
from receiver.domain.schedules import PollSchedule
from receiver.domain.task_state import TaskState
from receiver.domain.transitions import ALLOWED, decide
from receiver.domain.updates import ProviderUpdate, Source

START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEDULE = PollSchedule(first=15, longest=300, timeout=86400)
CONTENT = ("output", "error", "logs", "progress", "detail", "meta", "started_at", "ended_at", "due_at")
ENDINGS = (
    [TaskStatus.COMPLETED],
    [TaskStatus.FAILED],
    [TaskStatus.CANCELLED],
    [TaskStatus.FAILED, TaskStatus.COMPLETED],
)
END_EVENTS = frozenset(ENDING.values())
History = list[ProviderUpdate]
Arrival = tuple[History, History]
"""A history in order, and the same updates in the order in which they arrive."""
WORDS = ("dreaming", "uploading", "moderating", "queueing", "")


@dataclass
class Row:
    """The row of a task in memory, and the decisions that led to it."""

    state: TaskState
    content: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(CONTENT))
    decisions: list[Decision] = field(default_factory=list)
    transitions: list[tuple[str, str]] = field(default_factory=list)
    now: datetime = START

    def apply(self, update: ProviderUpdate) -> Decision:
        """Apply one update as `tracking.apply` does, one second after the previous one."""
        self.now += timedelta(seconds=1)
        decision = decide(self.state, update, now=self.now, schedule=SCHEDULE)
        changes = dict(decision.changes)
        if changes.get("status", self.state.status) != self.state.status:
            self.transitions.append((self.state.status, changes["status"]))
        if decision.event in END_EVENTS:
            changes["ended_event"] = f"event-{len(self.decisions)}"
        state_fields = set(TaskState.__struct_fields__)
        self.state = replace(self.state, **{name: value for name, value in changes.items() if name in state_fields})
        self.content |= {name: value for name, value in changes.items() if name in CONTENT}
        self.decisions.append(decision)
        return decision

    @property
    def end(self) -> dict[str, Any]:
        """The values that may not depend on the order. All times among them are the provider's."""
        names = ("output", "error", "logs", "detail", "meta", "started_at", "ended_at", "due_at")
        return {
            "status": self.state.status,
            "attempt": self.state.attempt,
            "provider_task_id": self.state.provider_task_id,
            **{name: self.content[name] for name in names},
        }

    @property
    def events(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.event is not None]


def submitted_row(max_attempts: int = 1) -> Row:
    """Return the row of a task whose create call is in flight."""
    return Row(
        TaskState(
            id=1,
            uid="0198a0a0-0000-7000-8000-000000000001",
            organization_id=1,
            status=TaskStatus.QUEUED,
            submission=Submission.SENDING,
            attempt=1,
            max_attempts=max_attempts,
            backoff_seconds=1.0,
            provider_task_id=None,
            progress=0,
            revision="",
            words=None,
            callback_id=None,
            ended_event=None,
            poll_count=0,
            last_update_at=START,
        )
    )


def row_after(updates: Iterable[ProviderUpdate], max_attempts: int = 1) -> Row:
    row = submitted_row(max_attempts)
    for update in updates:
        row.apply(update)
    return row


def content(decision: Decision) -> bytes:
    """Return the type and data of an event, without the source of its update."""
    snapshot = {name: value for name, value in decision.snapshot.items() if name != "source"}
    return orjson.dumps([decision.event, snapshot], option=orjson.OPT_SORT_KEYS)


@st.composite
def histories(
    draw: st.DrawFn, attempt: int = 1, endings: Sequence[list[TaskStatus]] = ENDINGS, has_attempt: bool | None = None
) -> History:
    """Generate the updates that a well-behaved provider reports for one attempt, in order."""
    is_numbered = draw(st.booleans()) if has_attempt is None else has_attempt
    progress, logs, images = 0, list[str](), list[str]()
    started_at: datetime | None = None

    def update(status: TaskStatus | None, **more: Any) -> ProviderUpdate:
        return ProviderUpdate(
            source=draw(st.sampled_from(Source)),
            status=status,
            provider_task_id=f"pt-{attempt}",
            attempt=attempt if is_numbered else None,
            started_at=started_at,
            meta={"usage": {"consume": progress}},
            **{"progress": progress, "logs": list(logs) or None, "output": output_of(images), **more},
        )

    waits = [status for status in (TaskStatus.STAGED, TaskStatus.PENDING) if draw(st.booleans())]
    history = [update(status) for status in waits]
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.integers(0, 3)) == 0:
            history.append(update(None, word=draw(st.sampled_from(WORDS))))
        started_at = START
        progress = min(100, progress + draw(st.integers(0, 40)))
        logs += draw(st.lists(st.sampled_from(["step", "still running"]), max_size=2))
        images += draw(st.lists(st.sampled_from(["https://x/1.png", "https://x/2.png"]), max_size=1))
        history.append(update(TaskStatus.PROCESSING))
    return history + [final_update(update, status, images) for status in draw(st.sampled_from(list(endings)))]


def final_update(update: Callable[..., ProviderUpdate], status: TaskStatus, images: list[str]) -> ProviderUpdate:
    ended_at = START + timedelta(hours=1)
    error = {"code": 10000, "message": "it broke", "raw_message": "it broke", "detail": None}
    if status == TaskStatus.COMPLETED:
        output = {"image_urls": [*images, "https://x/last.png"], "image_url": "https://x/last.png"}
        return update(status, output=output, ended_at=ended_at + timedelta(minutes=1))
    progress_lost = {"progress": 0, "output": None} if status == TaskStatus.FAILED else {}
    return update(status, error=error if status == TaskStatus.FAILED else None, ended_at=ended_at, **progress_lost)


def output_of(images: list[str]) -> dict[str, Any] | None:
    return {"image_urls": list(images)} if images else None


@st.composite
def reordered(draw: st.DrawFn, history: History) -> History:
    """Generate the updates of a history in any order and with repeats."""
    repeats = draw(st.lists(st.sampled_from(history), max_size=4))
    return draw(st.permutations([*history, *repeats]))


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    history = draw(histories())
    return history, draw(reordered(history))


@given(arrivals())
def test_every_order_ends_in_the_same_state(arrival: Arrival) -> None:
    history, received = arrival
    row = row_after(received)
    assert row.state.status == history[-1].status
    assert row.end == row_after(history).end


@given(arrivals())
def test_every_order_ends_with_the_same_progress(arrival: Arrival) -> None:
    history, received = arrival
    assert row_after(received).content["progress"] == row_after(history).content["progress"]


@given(arrivals())
def test_every_order_ends_with_the_same_unknown_words(arrival: Arrival) -> None:
    history, received = arrival
    assert row_after(received).state.words == row_after(history).state.words


@given(arrivals())
def test_a_task_that_has_not_ended_is_the_same_in_every_order(
    arrival: Arrival,
) -> None:
    history, received = ([update for update in updates if update.status not in TERMINAL] for updates in arrival)
    in_order, shuffled = row_after(history), row_after(received)
    names = ("status", "provider_task_id", "revision", "words", "progress")
    assert [getattr(shuffled.state, name) for name in names] == [getattr(in_order.state, name) for name in names]
    assert [shuffled.content[name] for name in ("output", "logs")] == [
        in_order.content[name] for name in ("output", "logs")
    ]


@given(arrivals())
def test_no_event_is_written_twice(arrival: Arrival) -> None:
    made = Counter(content(event) for event in row_after(arrival[1]).events)
    assert not [event for event, times in made.items() if times > 1]


@given(arrivals())
def test_a_task_ends_once_or_fails_and_is_corrected(
    arrival: Arrival,
) -> None:
    row = row_after(arrival[1])
    ends = [(number, each) for number, each in enumerate(row.decisions) if each.event in END_EVENTS]
    assert 1 <= len(ends) <= 2
    if len(ends) == 2:
        (first, failed), (_, corrected) = ends
        assert (failed.event, corrected.event) == (EventType.TASK_FAILED, EventType.TASK_COMPLETED)
        assert corrected.snapshot["corrects"] == f"event-{first}"
    assert [each.event for each in row.events].count(EventType.TASK_SUBMITTED) <= 1


@given(arrivals())
def test_every_change_of_state_is_in_the_table(arrival: Arrival) -> None:
    for before, to in row_after(arrival[1]).transitions:
        assert to in ALLOWED[before]


@given(arrivals(), st.data())
def test_a_task_is_due_until_it_ends_and_after_that_only_while_a_failure_may_be_corrected(
    arrival: Arrival, data: st.DataObject
) -> None:
    conclusion = ProviderUpdate(source=Source.POLL, status=TaskStatus.FAILED, by_provider=False, retryable=False)
    received = [*arrival[1]]
    received.insert(data.draw(st.integers(0, len(received))), conclusion)
    row = submitted_row()
    for update in received:
        ended_as = row.state.status if row.state.status in TERMINAL else None
        decision = row.apply(update)
        if decision.changes:
            is_due = row.content["due_at"] is not None
            assert is_due or row.state.status in TERMINAL
            assert not is_due or row.state.status not in (TaskStatus.COMPLETED, TaskStatus.CANCELLED)
        if not update.by_provider and ended_as is not None:
            assert row.state.status == ended_as
