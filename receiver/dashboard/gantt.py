"""When the steps of a run waited and worked, as bars over one axis of time. Pure functions: times are arguments.

Places are shares of the width, in percent: SVG draws them so, and text keeps its size whatever the width of the page.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil

from msgspec import Struct

from models import STEP_TERMINAL, StepStatus
from receiver.dashboard.run_graph import shortened
from receiver.dashboard.timeline import ShownObject
from receiver.dashboard.times import duration, parse
from receiver.domain.advance import UNDER_WAY

_LEAST = 0.6
"""Percent: a bar is so wide at least, so that what was short can be seen."""
_SHORTEST = timedelta(milliseconds=100)
_MOST_TICKS = 6
_LONGEST_LABEL = 16
_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_LONGER = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


class GanttTime(Struct, frozen=True):
    """A length of time. `kind` is a state, or `wait`; `title` says it in words."""

    x: float
    width: float
    kind: str
    title: str


class StepLane(Struct, frozen=True):
    """The bars of one step. `words` say what they show."""

    step: ShownObject
    bars: Sequence[GanttTime]
    began: str | None
    ended: str | None
    waited: float | None
    took: float | None
    tries: int

    @property
    def label(self) -> str:
        """Return the id of the step, shortened."""
        return shortened(str(self.step["id"]), _LONGEST_LABEL)

    @property
    def note(self) -> str:
        """Return what is beside the bars: how long the step took, and how many attempts."""
        parts = [duration(self.took)] if self.took is not None else []
        return " · ".join([*parts, *([f"{self.tries} attempts"] if self.tries > 1 else [])])


class Tick(Struct, frozen=True):
    """A place of the axis with its label."""

    x: float
    label: str


class Gantt(Struct, frozen=True):
    """The picture. `is_open`: something goes on, so it ends now."""

    start: datetime
    end: datetime
    is_open: bool
    lanes: Sequence[StepLane]
    ticks: Sequence[Tick]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds()


class _Part(Struct, frozen=True):
    begin: datetime
    end: datetime | None
    kind: str
    title: str


class Times(Struct, frozen=True):
    """When a run began, and ended if it has."""

    created_at: str
    ended_at: str | None


def gantt(steps: Sequence[ShownObject], tasks: Sequence[ShownObject], times: Times, now: datetime) -> Gantt:
    """Return the picture of steps with their attempts; `tasks` are those of the run, oldest first, each brief."""
    start = parse(times.created_at)
    parts = {step["id"]: list(_parts(step, tasks, start)) for step in steps}
    is_open = times.ended_at is None or any(step["status"] in UNDER_WAY for step in steps)
    known = [each for some in parts.values() for part in some for each in (part.begin, part.end) if each is not None]
    last = parse(times.ended_at) if times.ended_at is not None else start
    end = max(now if is_open else last, start + _SHORTEST, *known)
    length = (end - start).total_seconds()
    lanes = [_lane(step, parts[step["id"]], tasks, start, end) for step in steps]
    return Gantt(start, end, is_open, lanes, ticks(length))


def _parts(step: ShownObject, tasks: Sequence[ShownObject], start: datetime) -> Iterator[_Part]:
    """Yield what a step did, in order: it waited for others, then for the provider, and was worked on."""
    own = [task for task in tasks if task["step"] == step["id"]]
    if own and step["depends_on"]:
        title = f"waited for {', '.join(step['depends_on'])}"
        yield _Part(start, parse(own[0]["created_at"]), "wait", title)
    elif step["depends_on"] and step["status"] == StepStatus.PENDING:
        yield _Part(start, None, "wait", f"waits for {', '.join(step['depends_on'])}")
    if not own and step["started_at"] is not None:  # its task is purged
        yield _Part(*_whole_seconds(step), step["status"], step["status"])
    for task in own:
        if task["task_id"] == step["job_id"]:
            yield from _attempts(step, task)
        else:
            end = parse(task["ended_at"]) if task["ended_at"] else None
            yield _Part(parse(task["created_at"]), end, task["status"], f"an earlier task: {task['status']}")


def _whole_seconds(step: ShownObject) -> tuple[datetime, datetime | None]:
    begin, end = step["started_at"], step["completed_at"]
    return datetime.fromtimestamp(begin, UTC), None if end is None else datetime.fromtimestamp(end, UTC)


def _attempts(step: ShownObject, task: ShownObject) -> Iterator[_Part]:
    before = parse(task["created_at"])
    for attempt in step["attempts"]:
        name = f"attempt {attempt['attempt']}"
        sent = parse(attempt["submitted_at"]) if attempt["submitted_at"] else None
        began = parse(attempt["started_at"]) if attempt["started_at"] else None
        ended = parse(attempt["ended_at"]) if attempt["ended_at"] else None
        if attempt["attempt"] > 1 and sent is not None and sent > before:
            yield _Part(before, sent, "wait", f"waited before {name}")
            before = sent
        if began is not None and began > before:
            yield _Part(before, began, "queued", f"{name}: waited for the provider")
        elif began is None and ended is None:
            yield _Part(before, None, str(attempt["status"]), f"{name}: {attempt['status']}")
            return
        yield _Part(max(began or before, before), ended, str(attempt["status"]), f"{name}: {attempt['status']}")
        before = ended or before


def _lane(
    step: ShownObject, parts: Sequence[_Part], tasks: Sequence[ShownObject], start: datetime, end: datetime
) -> StepLane:
    own = [task for task in tasks if task["step"] == step["id"]]
    began = own[0]["created_at"] if own else None
    ended = own[-1]["ended_at"] if own and step["status"] in STEP_TERMINAL else None
    return StepLane(
        step=step,
        bars=[_bar(part, start, end) for part in parts],
        began=began,
        ended=ended,
        waited=(parse(began) - start).total_seconds() if began and step["depends_on"] else None,
        took=((parse(ended) if ended else end) - parse(began)).total_seconds() if began else None,
        tries=sum(max(task["attempt"], 1) for task in own),
    )


def _bar(part: _Part, start: datetime, end: datetime) -> GanttTime:
    length = (end - start).total_seconds()

    def place(moment: datetime) -> float:
        return min(max((moment - start).total_seconds() / length, 0.0), 1.0) * 100

    x = min(place(part.begin), 100 - _LEAST)
    last = place(part.end or end)
    seconds = ((part.end or end) - part.begin).total_seconds()
    return GanttTime(round(x, 2), round(max(last - x, _LEAST), 2), part.kind, f"{part.title}, {duration(seconds)}")


def ticks(seconds: float) -> list[Tick]:
    """Return the places of an axis of this length: whole numbers of a unit, at most six of which fit."""
    units = (*_SECONDS, *_LONGER)
    unit = next((each for each in units if seconds / each <= _MOST_TICKS), None)
    if unit is None:
        unit = 86_400 * ceil(seconds / 86_400 / _MOST_TICKS)
    count = int(seconds / unit)
    found = [Tick(round(number * unit / seconds * 100, 2), _label(number * unit, unit)) for number in range(count + 1)]
    return [tick for tick in found if tick.x <= 97] or found[:1]


def _label(seconds: float, unit: float) -> str:
    if seconds == 0:
        return "0"
    if unit < 1:
        return f"{seconds:.1f} s" if unit >= 0.1 else f"{seconds * 1000:.0f} ms"
    for length, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if unit >= length:
            return f"{seconds / length:g} {name}"
    return f"{seconds:g} s"
