"""An explanation of the API as a page shows it: with the time that is left, in words. Pure: the time is an argument."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from receiver.dashboard.times import duration, parse

_MINUTE = 60
_SOON_SECONDS, _SELDOM_SECONDS = 5.0, 30.0
"""How often a page whose next act is less than a minute away, or further, asks for itself again."""
_AFTER_SECONDS = 0.5
"""How long after the time of the next act the page looks what came of it."""
_TIMES = frozenset({"until", "since", "not_given_up_before"})
_LINKS = {"task_id": "/tasks/", "delivery_id": "/deliveries/", "webhook_id": "/webhooks/"}
_WORDS = {
    "until": "until",
    "since": "since",
    "not_given_up_before": "not given up before",
    "complete_looks": "complete looks so far",
    "task_id": "task",
    "delivery_id": "delivery",
    "webhook_id": "webhook",
}


class ShownDetail(Struct, frozen=True):
    """A number, time or id of what something waits for. `at` is a time, `path` the page that an id leads to."""

    label: str
    value: str
    at: str | None = None
    path: str | None = None


class ShownBlocker(Struct, frozen=True):
    """What the next act waits for."""

    text: str
    details: tuple[ShownDetail, ...]


class ShownExplanation(Struct, frozen=True):
    """Why something is in its state, and what happens next.

    `at` is the time of the next act, and `wait` says how far away that is. `again` is after how many seconds the
    page asks for itself again; None if nothing is to come. `bounds` are what happens otherwise: a sentence, its time,
    and how far away that is. `may` is what may be done.
    """

    reason: str
    next: str
    at: str | None
    wait: str
    again: float | None
    blocked_by: tuple[ShownBlocker, ...]
    bounds: tuple[tuple[str, str | None, str], ...]
    may: tuple[str, ...]


def shown_explanation(explanation: Mapping[str, Any], now: datetime) -> ShownExplanation:
    """Return an explanation of a task, run or delivery as a page shows it."""
    act = explanation["next"]
    return ShownExplanation(
        reason=_sentence(explanation["reason"]),
        next=_sentence(act["text"]),
        at=act["at"],
        wait=_distance(act["at"], now),
        again=_again(act["at"], now),
        blocked_by=tuple(_blocker(each, now) for each in explanation["blocked_by"]),
        bounds=tuple(_bounds(explanation["facts"], now)),
        may=tuple(explanation["may"]),
    )


def _bounds(facts: Mapping[str, Any], now: datetime) -> list[tuple[str, str | None, str]]:
    """Return what follows if nothing else happens, of a task that the provider has; corrections of one that ended."""
    found: list[tuple[str, str | None, str]] = []
    for name, text in (
        ("times_out_at", "Without any news it fails with timed_out"),
        ("must_change_until", "Without a change it fails with timed_out, whatever the provider says"),
        ("outputs_expire_at", "The provider deletes its outputs: keep what you need before"),
    ):
        if facts.get(name):
            found.append((text, facts[name], _distance(facts[name], now)))
    if corrections := facts.get("corrections"):
        what = {"completed": "that it was completed after all", "result": "its final result"}
        words = " or ".join(what.get(each, str(each)) for each in corrections)
        found.append((f"The provider may still report {words}: that corrects it", None, ""))
    return found


def _blocker(blocker: Mapping[str, Any], now: datetime) -> ShownBlocker:
    text = str(blocker["text"])
    named = ((name, value) for name, value in blocker.items() if name not in ("code", "text") and value is not None)
    shown = [_detail(name, value, now) for name, value in named if name in _LINKS or str(value) not in text]
    return ShownBlocker(_sentence(text), tuple(shown))


def _detail(name: str, value: Any, now: datetime) -> ShownDetail:
    label = _WORDS.get(name, name.replace("_", " "))
    if name in _TIMES:
        return ShownDetail(label, _distance(value, now), at=value)
    if name in _LINKS:
        return ShownDetail(label, str(value), path=f"{_LINKS[name]}{value}")
    return ShownDetail(label, ", ".join(map(str, value)) if isinstance(value, list) else f"{value}")


def _distance(time: str | None, now: datetime) -> str:
    """Return how far away a time is, in words."""
    if time is None:
        return ""
    seconds = (parse(time) - now).total_seconds()
    if -1 < seconds < 1:
        return "now"
    words = duration(abs(seconds)) if abs(seconds) >= _MINUTE else f"{math.ceil(abs(seconds))} s"
    return f"in {words}" if seconds > 0 else f"{words} ago"


def _again(time: str | None, now: datetime) -> float | None:
    if time is None:
        return None
    left = max(0.0, (parse(time) - now).total_seconds())
    return round(min(left + _AFTER_SECONDS, _SOON_SECONDS if left < _MINUTE else _SELDOM_SECONDS), 1)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
