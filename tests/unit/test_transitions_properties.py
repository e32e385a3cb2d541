"""Any provider's history, with repeats and in any order, ends the same, and no event is made twice."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from models import TERMINAL, EventType, Submission, TaskStatus
from receiver.domain.transitions import ALLOWED, ENDING, Decision, PollSchedule, TaskState, decide
from receiver.domain.updates import ProviderUpdate, Source

START = datetime(2026, 1, 1, tzinfo=UTC)
LOOKS = PollSchedule(first=15, longest=300, timeout=86400)
PATIENT = settings(deadline=None)
CONTENT = ("output", "error", "logs", "progress", "detail", "meta", "started_at", "ended_at", "due_at")
ENDINGS = (
    [TaskStatus.COMPLETED],
    [TaskStatus.FAILED],
    [TaskStatus.CANCELLED],
    [TaskStatus.FAILED, TaskStatus.COMPLETED],
)
END_EVENTS = frozenset(ENDING.values())
History = list[ProviderUpdate]
Telling = tuple[History, History]
"""What happened, in order; and how it was told."""
WORDS = ("dreaming", "uploading", "moderating", "queueing", "")


@dataclass
class Row:
    """A task's row in memory, and what was decided on the way to it."""

    state: TaskState
    content: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(CONTENT))
    decisions: list[Decision] = field(default_factory=list)
    moves: list[tuple[str, str]] = field(default_factory=list)
    now: datetime = START

    def apply(self, update: ProviderUpdate) -> Decision:
        """Take one update as the applier does, a second after the one before."""
        self.now += timedelta(seconds=1)
        decision = decide(self.state, update, now=self.now, schedule=LOOKS)
        changes = dict(decision.changes)
        if changes.get("status", self.state.status) != self.state.status:
            self.moves.append((self.state.status, changes["status"]))
        if decision.event in END_EVENTS:
            changes["ended_event"] = f"event-{len(self.decisions)}"
        state_fields = {each.name for each in fields(TaskState)}
        self.state = replace(self.state, **{name: value for name, value in changes.items() if name in state_fields})
        self.content |= {name: value for name, value in changes.items() if name in CONTENT}
        self.decisions.append(decision)
        return decision

    @property
    def end(self) -> dict[str, Any]:
        """What the end must be, whatever the order: the times are the provider's own."""
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


def a_row(max_attempts: int = 1) -> Row:
    """A task whose create call is under way."""
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


def folded(updates: Iterable[ProviderUpdate], max_attempts: int = 1) -> Row:
    row = a_row(max_attempts)
    for update in updates:
        row.apply(update)
    return row


def content(decision: Decision) -> bytes:
    """What an event says, but for the way it came."""
    told = {name: value for name, value in decision.snapshot.items() if name != "source"}
    return orjson.dumps([decision.event, told], option=orjson.OPT_SORT_KEYS)


@st.composite
def histories(
    draw: st.DrawFn, attempt: int = 1, endings: Sequence[list[TaskStatus]] = ENDINGS, says_attempt: bool | None = None
) -> History:
    """What a well-behaved provider says of one attempt, in the order in which it happened."""
    told = draw(st.booleans()) if says_attempt is None else says_attempt
    progress, logs, images = 0, list[str](), list[str]()
    started_at: datetime | None = None

    def say(status: TaskStatus | None, **more: Any) -> ProviderUpdate:
        return ProviderUpdate(
            source=draw(st.sampled_from(Source)),
            status=status,
            provider_task_id=f"pt-{attempt}",
            attempt=attempt if told else None,
            started_at=started_at,
            meta={"usage": {"consume": progress}},
            **{"progress": progress, "logs": list(logs) or None, "output": shown(images), **more},
        )

    waits = [status for status in (TaskStatus.STAGED, TaskStatus.PENDING) if draw(st.booleans())]
    history = [say(status) for status in waits]
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.integers(0, 3)) == 0:
            history.append(say(None, word=draw(st.sampled_from(WORDS))))
        started_at = START
        progress = min(100, progress + draw(st.integers(0, 40)))
        logs += draw(st.lists(st.sampled_from(["step", "still at it"]), max_size=2))
        images += draw(st.lists(st.sampled_from(["https://x/1.png", "https://x/2.png"]), max_size=1))
        history.append(say(TaskStatus.PROCESSING))
    return history + [last_word(say, status, images) for status in draw(st.sampled_from(list(endings)))]


def last_word(say: Callable[..., ProviderUpdate], status: TaskStatus, images: list[str]) -> ProviderUpdate:
    ended_at = START + timedelta(hours=1)
    error = {"code": 10000, "message": "it broke", "raw_message": "it broke", "detail": None}
    if status == TaskStatus.COMPLETED:
        output = {"image_urls": [*images, "https://x/last.png"], "image_url": "https://x/last.png"}
        return say(status, output=output, ended_at=ended_at + timedelta(minutes=1))
    told = {"progress": 0, "output": None} if status == TaskStatus.FAILED else {}
    return say(status, error=error if status == TaskStatus.FAILED else None, ended_at=ended_at, **told)


def shown(images: list[str]) -> dict[str, Any] | None:
    return {"image_urls": list(images)} if images else None


@st.composite
def mishaps(draw: st.DrawFn, history: History) -> History:
    """The same with repeats and in any order."""
    again = draw(st.lists(st.sampled_from(history), max_size=4))
    return draw(st.permutations([*history, *again]))


@st.composite
def tellings(draw: st.DrawFn) -> Telling:
    history = draw(histories())
    return history, draw(mishaps(history))


@PATIENT
@given(tellings())
def test_every_order_ends_in_the_same_state(telling: Telling) -> None:
    history, told = telling
    row = folded(told)
    assert row.state.status == history[-1].status
    assert row.end == folded(history).end


@PATIENT
@given(tellings())
def test_every_order_ends_with_the_same_progress(telling: Telling) -> None:
    history, told = telling
    assert folded(told).content["progress"] == folded(history).content["progress"]


@PATIENT
@given(tellings())
def test_every_order_ends_with_the_same_words(telling: Telling) -> None:
    history, told = telling
    assert folded(told).state.words == folded(history).state.words


@PATIENT
@given(tellings())
def test_a_task_that_has_not_ended_is_the_same_in_every_order(
    telling: Telling,
) -> None:
    history, told = ([update for update in updates if update.status not in TERMINAL] for updates in telling)
    in_order, shuffled = folded(history), folded(told)
    names = ("status", "provider_task_id", "revision", "words", "progress")
    assert [getattr(shuffled.state, name) for name in names] == [getattr(in_order.state, name) for name in names]
    assert [shuffled.content[name] for name in ("output", "logs")] == [
        in_order.content[name] for name in ("output", "logs")
    ]


@PATIENT
@given(tellings())
def test_no_event_is_made_twice(telling: Telling) -> None:
    made = Counter(content(event) for event in folded(telling[1]).events)
    assert not [event for event, times in made.items() if times > 1]


@PATIENT
@given(tellings())
def test_there_is_one_end_or_a_failure_and_its_correction(
    telling: Telling,
) -> None:
    row = folded(telling[1])
    ends = [(number, each) for number, each in enumerate(row.decisions) if each.event in END_EVENTS]
    assert 1 <= len(ends) <= 2
    if len(ends) == 2:
        (first, failed), (_, corrected) = ends
        assert (failed.event, corrected.event) == (EventType.TASK_FAILED, EventType.TASK_COMPLETED)
        assert corrected.snapshot["corrects"] == f"event-{first}"
    assert [each.event for each in row.events].count(EventType.TASK_SUBMITTED) <= 1


@PATIENT
@given(tellings())
def test_every_change_of_state_is_in_the_table(telling: Telling) -> None:
    for came_from, to in folded(telling[1]).moves:
        assert to in ALLOWED[came_from]


@PATIENT
@given(tellings(), st.data())
def test_something_is_due_until_the_end_and_never_after(telling: Telling, data: st.DataObject) -> None:
    conclusion = ProviderUpdate(source=Source.POLL, status=TaskStatus.FAILED, by_provider=False, retryable=False)
    told = [*telling[1]]
    told.insert(data.draw(st.integers(0, len(told))), conclusion)
    row = a_row()
    for update in told:
        ended_as = row.state.status if row.state.status in TERMINAL else None
        decision = row.apply(update)
        if decision.changes:
            assert (row.content["due_at"] is None) == (row.state.status in TERMINAL)
        if not update.by_provider and ended_as is not None:
            assert row.state.status == ended_as
