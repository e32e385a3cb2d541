"""The overview: how everything stands, and a range of time in numbers, from one answer of the statistics."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from receiver.api import stats as api
from receiver.api import tasks
from receiver.dashboard.pictures import Sparkline, sparkline
from receiver.dashboard.times import between
from receiver.dashboard.visit import Visit

PATH = "/overview"
RANGES = {
    "1h": ("Last hour", timedelta(hours=1)),
    "6h": ("6 hours", timedelta(hours=6)),
    "24h": ("24 hours", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}
DEFAULT_RANGE = "1h"
LATE_SECONDS = 60
"""What has been due for longer is shown as late."""
BEHIND_SECONDS = 60
"""Sums that are further behind are told: otherwise they are some seconds old."""
BAR_WIDTH = 1000
_WAYS = {"webhook": "by webhook", "poll": "by poll", "other": "by Ringback or a client"}
ShownStats = Mapping[str, Any]


class NumberLine(Struct, frozen=True):
    """A number of the range, and its course: `most` is its greatest value in one step."""

    name: str
    total: int
    picture: Sparkline
    most: int


class WayShare(Struct, frozen=True):
    """The share of a way in which tasks ended, and its place in the bar."""

    name: str
    text: str
    count: int
    percent: float
    x: float
    width: float


async def show_overview(visit: Visit) -> Response:
    """Show the overview. The range of time is in the URL."""
    chosen = dict(visit.query).get("range", DEFAULT_RANGE)
    chosen = chosen if chosen in RANGES else DEFAULT_RANGE
    if visit.query != _query(chosen):
        return visit.redirect(PATH, _query(chosen))
    since = visit.now - RANGES[chosen][1]
    stats = await visit.ask(api.get_stats, query={"since": since.isoformat()})
    of_tasks, of_deliveries = stats["tasks"], stats["deliveries"]
    return visit.page(
        "overview.html",
        stats=stats,
        chosen=chosen,
        ranges=[(name, title, visit.url(PATH, _query(name))) for name, (title, _) in RANGES.items()],
        is_new=_is_quiet(of_tasks) and not await _has_tasks(visit),
        task_lines=_lines(of_tasks, ("created", "completed", "failed", "cancelled")),
        delivery_lines=_lines(of_deliveries, ("delivered", "failed")),
        ways=_ways(of_tasks),
        due_tasks=between(of_tasks["oldest_due_at"], None, visit.now),
        due_deliveries=between(of_deliveries["oldest_due_at"], None, visit.now),
        late=LATE_SECONDS,
        behind=_behind(visit, stats),
        live=visit.url("/live"),
    )


def _query(chosen: str) -> list[tuple[str, str]]:
    return [] if chosen == DEFAULT_RANGE else [("range", chosen)]


def _is_quiet(of_tasks: ShownStats) -> bool:
    """Return whether there is no task now, and was none in the range."""
    return not any(of_tasks["now"].values()) and not of_tasks["created"] and not of_tasks["models"]


async def _has_tasks(visit: Visit) -> bool:
    found = await visit.ask(tasks.list_tasks, query={"limit": "1", "brief": "true"})
    return bool(found["data"])


def _lines(stats: ShownStats, names: Sequence[str]) -> list[NumberLine]:
    """Return a line for each number, all of them with the same scale."""
    series = {name: [each[name] for each in stats["series"]] for name in names}
    most = {name: max(values, default=0) for name, values in series.items()}
    greatest = max(most.values())
    return [NumberLine(name, stats[name], sparkline(series[name], greatest), most[name]) for name in names]


def _ways(of_tasks: ShownStats) -> list[WayShare]:
    """Return what brought the ends, with its place in a bar of all of them; nothing if there are none."""
    counts = {name: of_tasks[f"by_{name}"] for name in _WAYS}
    total = sum(counts.values())
    found: list[WayShare] = []
    x = 0.0
    for name, text in _WAYS.items() if total else ():
        share = counts[name] / total
        found.append(WayShare(name, text, counts[name], share * 100, round(x, 1), round(share * BAR_WIDTH, 1)))
        x += share * BAR_WIDTH
    return found


def _behind(visit: Visit, stats: ShownStats) -> float | None:
    """Return how many seconds the sums are behind, if that is to be told."""
    seconds = between(stats["counted_until"], None, visit.now) or 0.0
    return seconds if seconds > BEHIND_SECONDS else None
