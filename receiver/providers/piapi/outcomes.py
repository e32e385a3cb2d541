"""Which outcome each result of a call to PiAPI is. Pure functions.

Source: `receiver/providers/piapi/CONTRACT.md`, "Create" and "Errors and limits".

Why a create call needs several cases. PiAPI has no idempotency key: a create call that is sent twice makes two tasks,
and both are charged. So a call may be sent again only if it is certain that PiAPI made nothing. The cases differ in
exactly that:

- Certainly nothing was made: the request was never sent, or it was turned away before it was handled (429, 503 and the
  gateway's codes for "could not reach the server"). `NotMade`, and the same attempt is sent again.
- PiAPI decided against it (a 4xx). `Refused`: the same request would be refused again.
- PiAPI failed while it handled the request (a 500), which it reports itself. `FailedAttempt`: the attempt is over, and
  another attempt may follow.
- Everything else: the connection was lost after the request was sent, a gateway stopped waiting (502, 504, 520, 524),
  or the response cannot be used. `UnknownOutcome`: the task may exist, so the request is never sent again. It is
  found by its webhook or in PiAPI's list, or it fails with `submission_unknown`, which a person may retry.

A status that is in no list below is therefore unknown: the safe mistake is to wait, and not to pay twice.
"""

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
"""Turned away before anything was made. The last four are the gateway's codes for "could not reach the server"."""
TEMPORARY = frozenset({408, 425, 429})
"""4xx statuses that are not refusals: the same request may succeed later."""
REDIRECTS = frozenset({301, 307, 308})
"""Redirects of a POST to another address: nothing was made. Redirects are not followed."""
PROVIDER_FAULTS = frozenset(range(500, 512)) - {502, 503, 504}
"""The provider's own failures. From 512 on they are a gateway's, which does not know what the server did."""
GONE = frozenset({404, 410})
_UNKNOWN_TASK = ("record not found", "task not found")


def submit_outcome(outcome: CallOutcome) -> SubmitOutcome:
    """Return the outcome of a create call."""
    if isinstance(outcome, NotSent):
        return NotMade(outcome.message, outcome.retry_after)
    if isinstance(outcome, ResponseLost):
        return UnknownOutcome(outcome.message)
    if 200 <= outcome.status < 300 and _has_task(outcome.body):
        return _accept(outcome)
    status = outcome.effective_status
    if status is None or status == 200:
        return UnknownOutcome(_unusable(outcome))
    if status in NOT_MADE:
        return NotMade(outcome.message, outcome.retry_after)
    if _is_refusal(status):
        return refusal(status, outcome.message, outcome.body)
    if status in REDIRECTS:
        return FailedAttempt(status, f"the provider redirects (HTTP {status}): check RINGBACK_PIAPI_BASE_URL")
    if status in PROVIDER_FAULTS:
        return FailedAttempt(status, outcome.message)
    return UnknownOutcome(outcome.message)


def fetch_outcome(outcome: CallOutcome, provider_task_id: str, *, attempt: int | None) -> FetchOutcome:
    """Return the outcome of a poll of one task."""
    if not isinstance(outcome, CallResponse):
        return _no_answer(outcome)
    if 200 <= outcome.status < 300 and _has_task(outcome.body):
        try:
            update = read_task(outcome.body, source=Source.POLL, attempt=attempt)
        except MalformedUpdate as error:
            return NoAnswer(f"the provider's response cannot be used: {error}")
        if update.provider_task_id == provider_task_id:
            return Found(update)
        return NoAnswer("the provider's response is about another task")
    return Missing(outcome.message) if _is_missing(outcome) else _no_answer(outcome)


def cancel_outcome(outcome: CallOutcome) -> CancelOutcome:
    """Return the outcome of a cancel call."""
    if not isinstance(outcome, CallResponse):
        return _no_answer(outcome)
    if outcome.effective_status == 200 or outcome.status == 204:
        return Cancelled(outcome.message)
    if _is_missing(outcome):
        return Missing(outcome.message)
    if outcome.effective_status is not None and _is_refusal(outcome.effective_status):
        return refusal(outcome.effective_status, outcome.message, outcome.body)
    return _no_answer(outcome)


def refusal(status: int, message: str, body: Any = None) -> Refused:
    """Return a refusal with PiAPI's own body, or with one built in PiAPI's form."""
    return Refused(status, message, envelope_of(status, message, body))


def envelope_of(status: int, message: str, body: Any = None) -> dict[str, Any]:
    """Return `body` if it has PiAPI's form, `{"code", "message", ...}`, else a body in that form."""
    if isinstance(body, dict) and isinstance(body.get("code"), int) and isinstance(body.get("message"), str):
        return body
    return {"code": status, "data": None, "message": message}


def _accept(response: CallResponse) -> SubmitOutcome:
    try:
        return Accepted(read_task(response.body, source=Source.SUBMIT))
    except MalformedUpdate as error:
        return UnknownOutcome(f"the provider's response cannot be used: {error}")


def _has_task(body: Any) -> bool:
    try:
        return bool(find_task(body).get("task_id"))
    except MalformedUpdate:
        return False


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in TEMPORARY


def _is_missing(response: CallResponse) -> bool:
    # Some models report it only in the message, under another code.
    return response.effective_status in GONE or any(text in response.message.lower() for text in _UNKNOWN_TASK)


def _no_answer(outcome: CallOutcome) -> NoAnswer:
    if isinstance(outcome, ResponseLost):
        return NoAnswer(outcome.message)
    if isinstance(outcome, CallResponse) and outcome.effective_status in (None, 200):
        return NoAnswer(_unusable(outcome), outcome.retry_after)
    return NoAnswer(outcome.message, outcome.retry_after)


def _unusable(response: CallResponse) -> str:
    return f"HTTP {response.status} with a response that cannot be used: {response.message}"
