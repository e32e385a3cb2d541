"""What happened to a task, and the waits between, as lanes of a picture and as a list. Pure: times are arguments."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

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
_Happening = tuple[str, str, str, list[str], str | None]
"""Time, kind, title, notes and path of a step."""


class Bar(Struct, frozen=True):
    """A length of time in a lane, in units: `kind` is a state, which has a colour; `title` says it in words."""

    x: float
    width: float
    kind: str
    title: str
    is_minor: bool = False


class Lane(Struct, frozen=True):
    """A row of the picture, with marks for what happened at one moment."""

    label: str
    bars: Sequence[Bar]
    marks: Sequence[Bar] = ()
    note: str = ""


class TimelineStep(Struct, frozen=True):
    """Something that happened, for the list: `wait` is how many seconds after what happened before it.

    `kind` is a state, `path` the page of what it was.
    """

    at: str
    wait: float
    kind: str
    title: str
    notes: Sequence[str]
    path: str | None = None


class Timeline(Struct, frozen=True):
    """The picture and the list. `is_open`: the task has not ended, so the picture ends now."""

    start: datetime
    end: datetime
    is_open: bool
    lanes: Sequence[Lane]
    steps: Sequence[TimelineStep]

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
    attempts = task.get("attempts") or []
    if len(attempts) > 1:
        lanes += [_attempt_lane(attempt, scale) for attempt in attempts]
    lanes += [_delivery_lane(delivery, scale) for delivery in deliveries[:_MOST_DELIVERIES]]
    return Timeline(start, end, is_open, lanes, _steps(events, attempts, deliveries))


def history(events: Sequence[ShownObject]) -> list[TimelineStep]:
    """Return what happened by the events of a run and of its tasks, oldest first, for a list."""
    return _in_order([_event_of_run(event) for event in events])


class _Scale(Struct, frozen=True):
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
            kind_of(event),
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


def _steps(
    events: Sequence[ShownObject], attempts: Sequence[ShownObject], deliveries: Sequence[ShownObject]
) -> list[TimelineStep]:
    """Return everything that has a time, from the oldest of the events on."""
    found = [_event(event) for event in events]
    found += [_create_call(attempt) for attempt in attempts if attempt["submitted_at"]]
    found += [_settled(delivery) for delivery in deliveries if delivery["settled_at"]]
    begin = parse(events[0]["created_at"]) if events else datetime.min.replace(tzinfo=UTC)
    return _in_order([each for each in found if parse(each[0]) >= begin])


def _in_order(found: Sequence[_Happening]) -> list[TimelineStep]:
    """Return what happened in the order of time, and how long after the one before it each was."""
    timed = sorted(((parse(each[0]), each) for each in found), key=lambda pair: pair[0])
    before = [None, *(at for at, _ in timed)]
    return [
        TimelineStep(time, 0.0 if earlier is None else (at - earlier).total_seconds(), kind, title, notes, path)
        for earlier, (at, (time, kind, title, notes, path)) in zip(before, timed, strict=False)
    ]


def _event(event: ShownObject) -> _Happening:
    return str(event["created_at"]), kind_of(event), str(event["type"]), notes_of(event), None


def _event_of_run(event: ShownObject) -> _Happening:
    time, kind, title, notes, _ = _event(event)
    if not event["task_id"]:
        return time, kind, title, notes, None
    return time, kind, title, [f"step {event['data']['step']}", *notes], f"/tasks/{event['task_id']}"


def _create_call(attempt: ShownObject) -> _Happening:
    number = [f"attempt {attempt['attempt']}"] if attempt["attempt"] > 1 else []
    return str(attempt["submitted_at"]), "queued", "create call", number, None


def _settled(delivery: ShownObject) -> _Happening:
    attempts = delivery["attempt_count"]
    notes = [f"to {delivery['endpoint_url']}", "1 attempt" if attempts == 1 else f"{attempts} attempts"]
    if delivery["last_status_code"]:
        notes.append(f"last answer {delivery['last_status_code']}")
    if delivery["last_error"]:
        notes.append(str(delivery["last_error"])[:300])
    title = f"delivery of {delivery['event_type']}"
    return str(delivery["settled_at"]), str(delivery["status"]), title, notes, f"/deliveries/{delivery['id']}"


def kind_of(event: ShownObject) -> str:
    """Return the state that an event brought."""
    return str(event["data"].get("status") or "queued")


def notes_of(event: ShownObject) -> list[str]:
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
