"""The numbers of one webhook as pictures: what was sent, the share that was accepted, how long answers took. Pure."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct

from receiver.dashboard.pictures import HEIGHT, Column, Sparkline, columns, sparkline
from receiver.dashboard.times import duration, parse

RANGES = {
    "1h": timedelta(hours=1),
    "12h": timedelta(hours=12),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
DEFAULT_RANGE = "24h"
_MOST_COLUMNS = 120
_STEPS = {"minute": 60, "hour": 3600}
_WORDS = {60: "a minute", 3600: "an hour"}
_NUMBERS = ("attempts", "delivered", "failed", "dead")
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")

Numbers = Mapping[str, Any]
Drawn = tuple[str, list[Column], list[str]]


class WebhookPictures(Struct, frozen=True):
    """What was sent, as columns; the success rate, as a line; percentiles, as lengths of 100. `step` is a column's."""

    step: str
    most: int
    sent: Sequence[Drawn]
    rate: Sparkline
    latencies: Sequence[tuple[str, int, float]]


def pictures_of(stats: Numbers) -> WebhookPictures | None:
    """Return the pictures of `GET /api/v1/webhooks/{id}/stats`; None if nothing was sent in the range.

    Its series may have nothing although its sum has something: they are read one after the other.
    """
    found = stats["deliveries"]
    series, step = _grouped(found["series"], _STEPS[stats["step"]])
    most = max(each["attempts"] for each in series)
    if not most:
        return None
    return WebhookPictures(
        _WORDS.get(step) or duration(step), most, _sent(series, most), _rate(series), _latencies(found)
    )


def percent(share: float | None) -> str:
    """Return a share in words. It is rounded down: 100 % means all."""
    return "" if share is None else f"{math.floor(share * 1000) / 10:g} %"


def _grouped(series: Sequence[Numbers], step: int) -> tuple[list[dict[str, Any]], int]:
    """Return the sums of steps side by side, so that there are `_MOST_COLUMNS` at most, and the seconds of each."""
    size = math.ceil(len(series) / _MOST_COLUMNS)
    groups = [series[start : start + size] for start in range(0, len(series), size)]
    sums = [
        {"at": group[0]["at"], **{name: sum(each[name] for each in group) for name in _NUMBERS}} for group in groups
    ]
    return sums, size * step


def _sent(series: Sequence[Numbers], most: int) -> list[Drawn]:
    """Return columns that stand upon each other: what was accepted, and above it what failed."""
    titles = [
        f"{parse(each['at']):%d %b %H:%M}: {each['delivered']} accepted, {each['failed']} failed" for each in series
    ]
    accepted = columns([each["delivered"] for each in series], most)
    whole = columns([each["attempts"] for each in series], most)
    failed = [
        Column(
            all_.x, all_.y, all_.width, round((part.y if part.value else HEIGHT) - all_.y, 1), all_.value - part.value
        )
        for all_, part in zip(whole, accepted, strict=True)
    ]
    return [_drawn("delivered", accepted, titles), _drawn("failed", failed, titles)]


def _drawn(kind: str, found: Sequence[Column], titles: Sequence[str]) -> Drawn:
    there = [(each, title) for each, title in zip(found, titles, strict=True) if each.value]
    return kind, [each for each, _ in there], [title for _, title in there]


def _rate(series: Sequence[Numbers]) -> Sparkline:
    """Return the share that was accepted; where nothing was sent it is as before."""
    known = [each["delivered"] / each["attempts"] if each["attempts"] else None for each in series]
    last = next(each for each in known if each is not None)
    shares = []
    for each in known:
        last = last if each is None else each
        shares.append(last)
    return sparkline(shares, 1)


def _latencies(found: Numbers) -> list[tuple[str, int, float]]:
    """Return name, milliseconds and length of each percentile; none where nothing was answered."""
    values = [(name.removesuffix("_ms"), found[name]) for name in _PERCENTILES if found[name] is not None]
    longest = max((value for _, value in values), default=0) or 1
    return [(name, value, round(100 * value / longest, 1)) for name, value in values]
