"""What PiAPI's answers come to. Pure; the rules are DESIGN section 4, "Submitting is intent first"."""

from typing import Any

from receiver.domain.updates import Source
from receiver.providers.base import (
    Accepted,
    Cancelled,
    CancelOutcome,
    FailedAttempt,
    FetchOutcome,
    Found,
    MalformedUpdate,
    Missing,
    NoAnswer,
    NotMade,
    Refused,
    SubmitOutcome,
    UnknownOutcome,
)
from receiver.providers.piapi.calls import CallOutcome, CallResponse, NotSent, ResponseLost
from receiver.providers.piapi.tasks import find_task, read_task

NOT_MADE = frozenset({425, 429, 503, 521, 523, 525, 526})
"""Turned away before anything was made. The last four are the gateway's words for "never reached the provider"."""
PASSING = frozenset({408, 425, 429})
"""A 4xx that is no refusal: the same request may do later."""
MISPLACED = frozenset({301, 307, 308})
"""Redirects that say "ask elsewhere": nothing was made, and we follow none."""
BROKEN = frozenset(range(500, 512)) - {502, 503, 504}
"""The provider's own failures. From 512 on they are a gateway's, which does not know what happened behind it."""
GONE = frozenset({404, 410})
_UNKNOWN_TASK = ("record not found", "task not found")


def judge_submit(outcome: CallOutcome) -> SubmitOutcome:
    """Say what became of a create call."""
    if isinstance(outcome, NotSent):
        return NotMade(outcome.message, outcome.retry_after)
    if isinstance(outcome, ResponseLost):
        return UnknownOutcome(outcome.message)
    if 200 <= outcome.status < 300 and _has_task(outcome.body):
        return _accept(outcome)
    status = outcome.effective_status
    if status is None or status == 200:
        return UnknownOutcome(_senseless(outcome))
    if status in NOT_MADE:
        return NotMade(outcome.message, outcome.retry_after)
    if _is_refusal(status):
        return refuse(status, outcome.message, outcome.body)
    if status in MISPLACED:
        return FailedAttempt(status, f"the provider redirects (HTTP {status}): look at RINGBACK_PIAPI_BASE_URL")
    if status in BROKEN:
        return FailedAttempt(status, outcome.message)
    return UnknownOutcome(outcome.message)


def judge_fetch(outcome: CallOutcome, provider_task_id: str, *, attempt: int | None) -> FetchOutcome:
    """Say what a look at a task brought."""
    if not isinstance(outcome, CallResponse):
        return _no_answer(outcome)
    if 200 <= outcome.status < 300 and _has_task(outcome.body):
        try:
            update = read_task(outcome.body, source=Source.POLL, attempt=attempt)
        except MalformedUpdate as error:
            return NoAnswer(f"the provider's answer makes no sense: {error}")
        if update.provider_task_id == provider_task_id:
            return Found(update)
        return NoAnswer("the provider answered with another task")
    return Missing(outcome.message) if _is_missing(outcome) else _no_answer(outcome)


def judge_cancel(outcome: CallOutcome) -> CancelOutcome:
    """Say what became of a cancellation."""
    if not isinstance(outcome, CallResponse):
        return _no_answer(outcome)
    if outcome.effective_status == 200 or outcome.status == 204:
        return Cancelled(outcome.message)
    if _is_missing(outcome):
        return Missing(outcome.message)
    if outcome.effective_status is not None and _is_refusal(outcome.effective_status):
        return refuse(outcome.effective_status, outcome.message, outcome.body)
    return _no_answer(outcome)


def refuse(status: int, message: str, body: Any = None) -> Refused:
    """Return a refusal with the provider's own body, or with one in its usual form."""
    return Refused(status, message, body_in_form(status, message, body))


def body_in_form(status: int, message: str, body: Any = None) -> dict[str, Any]:
    """Return `body` if it has PiAPI's form, `{"code", "message", ...}`, else one that has."""
    if isinstance(body, dict) and isinstance(body.get("code"), int) and isinstance(body.get("message"), str):
        return body
    return {"code": status, "data": None, "message": message}


def _accept(answer: CallResponse) -> SubmitOutcome:
    try:
        return Accepted(read_task(answer.body, source=Source.SUBMIT))
    except MalformedUpdate as error:
        return UnknownOutcome(f"the provider's answer makes no sense: {error}")


def _has_task(body: Any) -> bool:
    try:
        return bool(find_task(body).get("task_id"))
    except MalformedUpdate:
        return False


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in PASSING


def _is_missing(answer: CallResponse) -> bool:
    # Some models say it in words, under another code.
    return answer.effective_status in GONE or any(words in answer.message.lower() for words in _UNKNOWN_TASK)


def _no_answer(outcome: CallOutcome) -> NoAnswer:
    if isinstance(outcome, ResponseLost):
        return NoAnswer(outcome.message)
    if isinstance(outcome, CallResponse) and outcome.effective_status in (None, 200):
        return NoAnswer(_senseless(outcome), outcome.retry_after)
    return NoAnswer(outcome.message, outcome.retry_after)


def _senseless(answer: CallResponse) -> str:
    return f"HTTP {answer.status}, but nothing that makes sense: {answer.message}"
