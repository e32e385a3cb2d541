"""What an explanation of a task, run or delivery is: why its state, what happens next and when, what that waits for."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from receiver.domain.representations import iso

_LONGEST_WORDS = 300


class Act(StrEnum):
    """What Ringback does next with a task, run or delivery."""

    SUBMIT = "submit"
    RETRY = "retry"
    """Another attempt: the one before failed."""
    AWAIT_ANSWER = "await_answer"
    """The answer of a create call that is under way."""
    SEARCH = "search"
    """For a task whose create call got no answer, in the provider's list."""
    POLL = "poll"
    GIVE_UP = "give_up"
    """One look more, and the task fails if that brings no news."""
    RECALL = "recall"
    """The provider is asked to cancel it."""
    CANCEL = "cancel"
    """Without the provider, which has nothing of it."""
    LOOK_AGAIN = "look_again"
    """At a task that Ringback ended without the provider's word."""
    ADVANCE = "advance"
    """The next steps of a run begin."""
    DELIVER = "deliver"
    NONE = "none"


class NextAct(Struct, frozen=True):
    """What happens next; `at` is None if that has no time of its own: then something blocks it, or nothing follows."""

    act: Act
    at: datetime | None
    text: str


class Blocker(Struct, frozen=True):
    """What the next act waits for; `details` are its numbers, times and ids."""

    code: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Explanation(Struct, frozen=True, kw_only=True):
    """Why something is in its state. `may` are what its client may do with it, `facts` what this follows from."""

    status: str
    reason: str
    next: NextAct
    blocked_by: Sequence[Blocker] = ()
    may: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def native_explanation(name: str, uid: str, explanation: Explanation, now: datetime) -> dict[str, Any]:
    """Return an explanation as the API returns it; `name` is that of the id of what it explains. Times are ISO 8601."""
    return {
        "object": "explanation",
        name: uid,
        "status": explanation.status,
        "reason": explanation.reason,
        "next": native_next(explanation.next),
        "blocked_by": [
            {"code": each.code, "text": each.text, **_plain(each.details)} for each in explanation.blocked_by
        ],
        "may": list(explanation.may),
        "facts": _plain(explanation.facts),
        "explained_at": iso(now),
    }


def native_next(act: NextAct) -> dict[str, Any]:
    """Return what happens next as the API returns it."""
    return {"action": act.act.value, "at": iso(act.at), "text": act.text}


def earliest(acts: Sequence[NextAct]) -> NextAct | None:
    """Return the act that comes first, one without a time last; None of none."""
    timed = [each for each in acts if each.at is not None]
    return min(timed, key=lambda each: each.at or datetime.max) if timed else next(iter(acts), None)


def words_of(error: Any) -> str:
    """Return the code and the message of a stored error, shortened."""
    if not isinstance(error, Mapping):
        return "no reason is known"
    said = ": ".join(str(part) for part in (error.get("code"), error.get("message")) if part not in (None, ""))
    return said if len(said) <= _LONGEST_WORDS else f"{said[:_LONGEST_WORDS]}..."


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: iso(value) if isinstance(value, datetime) else value for name, value in values.items()}
