"""What happened to a task, and the waits between, as lanes of a picture and as a list. Pure: times are arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from models import EventType
from receiver.dashboard.times import parse

WIDTH = 1000
"""Of a lane, in units of its picture: pictures are stretched to the width of the page."""
_LEAST = 4
"""A bar has this width at least, so that what was short can be seen."""
_MARK = 2
_MOST_DELIVERIES = 8
_SHORT = timedelta(milliseconds=1)
ShownObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """A length of time in a lane, in units: `kind` is a state, which has a colour; `title` says it in words."""

    x: float
    width: float
    kind: str
    title: str
    is_minor: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of the picture, with marks for what happened at one moment."""

    label: str
    bars: Sequence[Bar]
    marks: Sequence[Bar] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened, for the list: `wait` is how many seconds after what happened before it."""

    at: str
    wait: float
    kind: str
    title: str
    notes: Sequence[str]
    event: ShownObject


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture and the list. `is_open`: the task has not ended, so the picture ends now."""

    start: datetime
    end: datetime
    is_open: bool
    lanes: Sequence[Lane]
    steps: Sequence[Step]

    @property
    def seconds(self) -> float:
        """How long the picture is, in seconds."""
        return (self.end - self.start).total_seconds()


def timeline(
    task: ShownObject, events: Sequence[ShownObject], deliveries: Sequence[ShownObject], now: datetime
) -> Timeline:
    """Return the timeline of a task, of its events and deliveries, oldest first each."""
    start = parse(task["created_at"])
    is_open = task["ended_at"] is None
    times = [start + _SHORT, *(parse(event["created_at"]) for event in events)]
    times += [parse(each["settled_at"]) if each["settled_at"] else now for each in deliveries[:_MOST_DELIVERIES]]
    end = max(now if is_open else parse(task["ended_at"]), *times)
    scale = _Scale(start, end)
    lanes = [Lane("State", _states(task, events, scale), _marks(events, scale))]
    if len(attempts := task.get("attempts") or []) > 1:
        lanes += [_attempt_lane(attempt, scale) for attempt in attempts]
    lanes += [_delivery_lane(delivery, scale) for delivery in deliveries[:_MOST_DELIVERIES]]
    return Timeline(start, end, is_open, lanes, _steps(events))


def history(events: Sequence[ShownObject]) -> list[Step]:
    """Return what happened by events of tasks and runs, oldest first, for a list."""
    return _steps(events)


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    end: datetime

    def x(self, moment: datetime) -> float:
        share = (moment - self.start) / (self.end - self.start)
        return round(min(max(share, 0.0), 1.0) * WIDTH, 2)

    def bar(self, begin: datetime, end: datetime, kind: str, title: str) -> Bar:
        x = min(self.x(begin), WIDTH - _LEAST)
        return Bar(x, round(max(self.x(end) - x, _LEAST), 2), kind, title)


def _states(task: ShownObject, events: Sequence[ShownObject], scale: _Scale) -> list[Bar]:
    """Return a bar for each state that the task was in, from the event that brought it to the next."""
    bars: list[Bar] = []
    begin, state = scale.start, "queued"
    for event in events:
        to = str(event["data"].get("status") or state)
        if to != state and (at := parse(event["created_at"])) >= begin:
            bars.append(scale.bar(begin, at, state, state))
            begin, state = at, to
    if task["ended_at"] is None:
        bars.append(scale.bar(begin, scale.end, state, state))
    return bars


def _marks(events: Sequence[ShownObject], scale: _Scale) -> list[Bar]:
    return [
        Bar(
            min(scale.x(parse(event["created_at"])), WIDTH - _MARK),
            _MARK,
            _kind(event),
            str(event["type"]),
            is_minor=event["type"] == EventType.TASK_UPDATED,
        )
        for event in events
    ]


def _attempt_lane(attempt: ShownObject, scale: _Scale) -> Lane:
    begin = attempt["submitted_at"] or attempt["started_at"]
    end = parse(attempt["ended_at"]) if attempt["ended_at"] else scale.end
    bars = [scale.bar(parse(begin), end, str(attempt["status"]), str(attempt["status"]))] if begin else []
    return Lane(f"Attempt {attempt['attempt']}", bars, note=str(attempt["status"]))


def _delivery_lane(delivery: ShownObject, scale: _Scale) -> Lane:
    end = parse(delivery["settled_at"]) if delivery["settled_at"] else scale.end
    kind, attempts = str(delivery["status"]), delivery["attempt_count"]
    bar = scale.bar(parse(delivery["created_at"]), end, kind, f"{delivery['event_type']}: {kind}")
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return Lane(f"{delivery['event_type']} → {delivery['endpoint_url']}", [bar], note=f"{kind}, {tries}")


def _steps(events: Sequence[ShownObject]) -> list[Step]:
    steps: list[Step] = []
    before = parse(events[0]["created_at"]) if events else None
    for event in events:
        at = parse(event["created_at"])
        wait = max((at - before).total_seconds(), 0.0) if before is not None else 0.0
        steps.append(Step(event["created_at"], wait, _kind(event), str(event["type"]), _notes(event), event))
        before = at
    return steps


def _kind(event: ShownObject) -> str:
    """Return the state that an event brought."""
    return str(event["data"].get("status") or "queued")


def _notes(event: ShownObject) -> list[str]:
    """Return what is to be known of an event, in words."""
    data = event["data"]
    notes = [f"by {event['source']}"] if event["source"] else []
    if (data.get("attempt") or 1) > 1:
        notes.append(f"attempt {data['attempt']}")
    if data.get("progress") and event["type"] == "task.updated":
        notes.append(f"{data['progress']} %")
    if event["provider_status"]:
        notes.append(f"the provider says {event['provider_status']}")
    if event["retry_at"]:
        notes.append(f"another attempt at {parse(event['retry_at']):%H:%M:%S} UTC")
    if (error := data.get("error")) and error.get("message"):
        notes.append(str(error["message"])[:300])
    if data.get("corrects"):
        notes.append(f"corrects {data['corrects']}")
    if data.get("note"):
        notes.append(str(data["note"])[:300])
    return notes
