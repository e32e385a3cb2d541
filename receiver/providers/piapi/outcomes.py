"""Which outcome each result of a call to PiAPI is. Pure functions.

Source: `receiver/providers/piapi/CONTRACT.md`, "Create" and "Errors and limits".

Why a create call needs several cases. PiAPI has no idempotency key: a create call that is sent twice makes two tasks,
and both are charged. So a call may be sent again only if it is certain that PiAPI made nothing. The cases differ in
exactly that:

- Certainly nothing was made: the request was never sent, or it was turned away before it was handled (429, 503 and the
  gateway's codes for "could not reach the server"). `NotMade`, and the same attempt is sent again.
- PiAPI decided against it (a 4xx, or a success that is plainly an error). `Refused`: the same request would be refused
  again. So it is if PiAPI refuses Ringback's own key, but then with a code that says so.
- PiAPI failed while it handled the request (a 500), which it reports itself: before or after it made the task.
  `UnknownOutcome` with the status: PiAPI's list is looked at first, and only if it is complete and does not have the
  task is the attempt over. So it is with a 503 whose words are those of a gateway that lost its connection to a server
  which had the request; with any other 503 as `RINGBACK_PIAPI_UNAVAILABLE` says.
- Everything else: the connection was lost after the request was sent, a gateway stopped waiting (502, 504, 520, 524),
  or the response cannot be used. `UnknownOutcome`: the task may exist, so the request is never sent again. It is
  found by its webhook or in PiAPI's list, or it fails with `submission_unknown`, which a person may retry.

A status that is in no list below is therefore unknown: the safe mistake is to wait, and not to pay twice.
"""

import re
from typing import Any

import orjson

from models import TaskStatus
from receiver.domain.outputs import is_blank, leaf_count
from receiver.domain.updates import Source
from receiver.providers.base import (
    PROVIDER_UNAUTHORIZED,
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
from receiver.providers.calls import NotSent, ResponseLost
from receiver.providers.fields import read_status
from receiver.providers.piapi.bodies import read_body
from receiver.providers.piapi.calls import CallOutcome, PiAPIResponse
from receiver.providers.piapi.tasks import has_task, read_task
from receiver.providers.reasons import error_words, reason_of, says_no_error, words_of
from receiver.providers.statuses import GONE, LOST_AT_GATEWAY, NOT_MADE, PROVIDER_FAULTS, REDIRECTS, TEMPORARY

LARGEST_DETAIL = 4096
"""Bytes. A larger body of a refusal is passed on to the client, and not kept with the task."""
_UNKNOWN_TASK = re.compile(
    r"\b(?:task|record|job)(?:[ _]?id)?[\s:='\"]{0,4}[\w-]{0,64}['\"]?\s{0,2}(?:was |is |could |can)?"
    r"(?:not (?:be )?found|does(?: not|n't) exist|not exist|unknown)"
    r"|\b(?:no such|unknown|non-?existent|could not find|cannot find) (?:the )?(?:task|record|job)\b",
    re.IGNORECASE,
)
_OTHER_404 = re.compile(
    r"\b(?:page|route|path|url|endpoint|resource|file|host|server|service|upstream)\b", re.IGNORECASE
)
"""Words of a 404 that is about the address and not about a task: a gateway's, or that of a wrong base URL."""
_KEY = r"(?:api[ _-]?key|access[ _-]?token|credentials?|authorization)"
_WRONG = r"(?:invalid|wrong|missing|incorrect|expired|revoked|unknown|required|not (?:valid|found|provided))"
_KEY_REFUSED = re.compile(rf"{_KEY}.{{0,40}}{_WRONG}|{_WRONG}.{{0,40}}{_KEY}|unauthori[sz]ed|unauthenticated", re.I)
_NO_MONEY = re.compile(r"balance|credit|quota|insufficient|payment|billing|top.?up|not enough point", re.I)
_NOT_ENOUGH = re.compile(r"insufficient|not enough|too low|exhausted|run out", re.I)
_BASE_URL = "RINGBACK_PIAPI_BASE_URL"
_UNUSABLE, _NO_TASK = "the response cannot be used", "no such task"
_TOO_MANY = re.compile(r"too many requests|rate.?limit", re.I)
_MAY_BE_MADE = re.compile(
    r"time.?out|timed out|gateway|unavailable|internal|unexpected|try again|retry|upstream"
    r"|success|submitted|accepted|created|queued|processing|in progress",
    re.I,
)
"""Words of an answer without a task after which the task may exist all the same."""


def submit_outcome(outcome: CallOutcome, *, trusts_503: bool = True, account: str = "") -> SubmitOutcome:
    """Return the outcome of a create call.

    `trusts_503` says whether a 503 means that nothing was made, if its words do not say otherwise. `account` is the
    name of the account of the database whose call it was, "" for that of the environment.
    """
    if isinstance(outcome, NotSent):
        return NotMade(outcome.message, outcome.retry_after)
    if isinstance(outcome, ResponseLost):
        return UnknownOutcome(outcome.message)
    if 200 <= outcome.status < 300 and has_task(outcome.body, is_created=True):
        return _accept(outcome)
    if is_unauthorized(outcome):
        return unauthorized(outcome.message, account)
    status = outcome.effective_status
    if status is None or status == 200:
        return _error_inside(outcome) or UnknownOutcome(_unusable(outcome), seen=_seen(outcome, _UNUSABLE))
    if status == 503 and not (trusts_503 and LOST_AT_GATEWAY.search(outcome.message) is None):
        return UnknownOutcome(outcome.message, status, seen=_seen(outcome))
    if status in NOT_MADE:
        return NotMade(outcome.message, outcome.retry_after, seen=_seen(outcome))
    if _is_refusal(status):
        return refusal(status, outcome.message, outcome.body)
    if status in REDIRECTS:
        setting = f"the base_url of account {account!r}, or RINGBACK_PIAPI_BASE_URL" if account else _BASE_URL
        return FailedAttempt(status, f"the provider redirects (HTTP {status}): check {setting}")
    if status in PROVIDER_FAULTS:
        return UnknownOutcome(outcome.message, status, seen=_seen(outcome))
    return UnknownOutcome(outcome.message, seen=_seen(outcome))


def fetch_outcome(
    outcome: CallOutcome, provider_task_id: str, *, attempt: int | None, account: str = ""
) -> FetchOutcome:
    """Return the outcome of a poll of one task, by the account of this name."""
    if not isinstance(outcome, PiAPIResponse):
        return _no_answer(outcome, account)
    if 200 <= outcome.status < 300 and has_task(outcome.body):
        try:
            update = read_task(outcome.body, source=Source.POLL, attempt=attempt)
        except MalformedUpdate as error:
            return NoAnswer(f"the provider's response cannot be used: {error}", seen=_seen(outcome, _UNUSABLE))
        if update.provider_task_id == provider_task_id:
            return Found(update)
        return NoAnswer("the provider's response is about another task")
    return (
        Missing(outcome.message, _seen(outcome, _NO_TASK)) if _says_missing(outcome) else _no_answer(outcome, account)
    )


def cancel_outcome(outcome: CallOutcome, account: str = "") -> CancelOutcome:
    """Return the outcome of a cancel call, by the account of this name."""
    if not isinstance(outcome, PiAPIResponse):
        return _no_answer(outcome, account)
    if outcome.effective_status == 200 or outcome.status == 204:
        return Cancelled(outcome.message)
    if _is_missing(outcome):
        return Missing(outcome.message, _seen(outcome, _NO_TASK))
    if is_unauthorized(outcome):
        return unauthorized(outcome.message, account)
    if outcome.effective_status is not None and _is_refusal(outcome.effective_status):
        return refusal(outcome.effective_status, outcome.message, outcome.body)
    if 200 <= outcome.status < 300 and isinstance(refused := _error_inside(outcome), Refused):
        return refused
    return _no_answer(outcome, account)


def refusal(status: int, message: str, body: Any = None) -> Refused:
    """Return a refusal with PiAPI's own body, or with one built in PiAPI's form."""
    return Refused(status, message, envelope_of(status, message, body), detail=_detail(status, message, body))


def unauthorized(words: str, account: str = "") -> Refused:
    """Return the refusal of Ringback's own key, so that no client takes it for a refusal of its own key.

    It is that of the account of this name, "" for that of the environment.
    """
    key = f"that of account {account!r}" if account else "RINGBACK_PIAPI_API_KEY"
    message = f"the provider does not accept Ringback's own key: {key} is missing or wrong ({words})"
    body = {"code": 502, "data": None, "message": message, "error": {"code": PROVIDER_UNAUTHORIZED}}
    return Refused(502, message, body, PROVIDER_UNAUTHORIZED)


def is_unauthorized(response: PiAPIResponse) -> bool:
    """Return whether PiAPI refused Ringback's own key: a 401, or a 403 or an error in a success that names the key."""
    status = response.effective_status
    return status == 401 or (status in (403, None) and _KEY_REFUSED.search(error_words(response.body)) is not None)


def names_our_key(body: bytes) -> bool:
    """Return whether the body of a 403 says that it is about the key."""
    try:
        words = error_words(read_body(body))
    except MalformedUpdate:
        return False
    return _KEY_REFUSED.search(words) is not None


def envelope_of(status: int, message: str, body: Any = None) -> dict[str, Any]:
    """Return `body` if it has PiAPI's form, `{"code", "message", ...}`, else a body in that form."""
    if isinstance(body, dict) and isinstance(body.get("code"), int) and isinstance(body.get("message"), str):
        return body
    return {"code": status, "data": None, "message": message}


def _detail(status: int, message: str, body: Any) -> Any:
    """Return the body of a refusal if it says more than its status and message and is not large, else None."""
    if not isinstance(body, dict):
        return None
    more = [
        item for item in body.values() if not is_blank(item) and item is not False and item not in (status, message)
    ]
    return body if more and len(orjson.dumps(body)) <= LARGEST_DETAIL else None


def _accept(response: PiAPIResponse) -> SubmitOutcome:
    try:
        return Accepted(read_task(response.body, source=Source.SUBMIT))
    except MalformedUpdate as error:
        return UnknownOutcome(f"the provider's response cannot be used: {error}", seen=_seen(response, _UNUSABLE))


def _error_inside(response: PiAPIResponse) -> SubmitOutcome | None:
    """Return the outcome of a 2xx that has no task and is plainly an error; None if that cannot be told.

    Source: `receiver/providers/piapi/CONTRACT.md`, "Errors and limits".
    """
    words = _plain_error(response)
    if not any(map(str.isalpha, words)) or (_MAY_BE_MADE.search(words) and not _NOT_ENOUGH.search(words)):
        return None
    if _TOO_MANY.search(words):
        return NotMade(words, response.retry_after, seen=_seen(response, "too many calls"))
    return refusal(402 if _NO_MONEY.search(words) else 400, words, response.body)


def _plain_error(response: PiAPIResponse) -> str:
    """Return the words of a body that says by itself that it is an error, "" if it does not."""
    body = response.body
    if not isinstance(body, dict):
        return ""
    data = body.get("data")
    for each in (body, data if isinstance(data, dict) else {}):
        words, _ = reason_of(each, failed=False)
        if words or _says_failed(each):
            return words or error_words(each)
    code = body.get("code")
    is_other_code = response.effective_status is None and code not in (None, "", True) and not _is_success_code(code)
    if is_other_code and isinstance(data, str):
        return error_words(body) or words_of(data)
    words = error_words(body)
    # A success code says nothing against words such as "insufficient credits" where the task should be.
    has_no_data = "data" in body and data is None and (code is None or _NOT_ENOUGH.search(words) is not None)
    return words if leaf_count(data) == 0 and (is_other_code or has_no_data) else ""


def _says_failed(body: dict[str, Any]) -> bool:
    """Return whether a field says that the call failed, whatever the words are."""
    is_no_success = any(body.get(name) in (False, "false", "False") for name in ("success", "ok"))
    return is_no_success or body.get("error") is True or read_status(body.get("status"))[0] == TaskStatus.FAILED


def _is_success_code(code: Any) -> bool:
    """Return whether a code says success: 0, 1, 2xx or a word such as `success`."""
    text = str(code).strip()
    return says_no_error(text) or text == "1" or (len(text) == 3 and text.startswith("2"))


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in TEMPORARY


def _is_missing(response: PiAPIResponse) -> bool:
    # Some models report it only in the message, under another code.
    return response.effective_status in GONE or _UNKNOWN_TASK.search(response.message) is not None


def _says_missing(response: PiAPIResponse) -> bool:
    """Return whether this is PiAPI's own word that it has no such task, and no gateway's 404.

    PiAPI's is an object with a code, or one whose words are about a task or a record. Source:
    `receiver/providers/piapi/CONTRACT.md`, "Errors and limits".
    """
    if not isinstance(response.body, dict):
        return False
    if _UNKNOWN_TASK.search(response.message):
        return True
    code = str(response.body.get("code"))
    return code in map(str, GONE) and _OTHER_404.search(response.message) is None


def _no_answer(outcome: CallOutcome, account: str) -> NoAnswer:
    if not isinstance(outcome, PiAPIResponse):
        return NoAnswer(outcome.message, None if isinstance(outcome, ResponseLost) else outcome.retry_after)
    wait = outcome.retry_after
    if is_unauthorized(outcome):
        seen = _seen(outcome, "Ringback's own key is refused")
        return NoAnswer(unauthorized(outcome.message, account).message, wait, seen=seen, unauthorized=True)
    if outcome.effective_status in (None, 200):
        return NoAnswer(_unusable(outcome), wait, seen=_seen(outcome, _UNUSABLE))
    return NoAnswer(outcome.message, wait, seen=_seen(outcome))


def _seen(response: PiAPIResponse, reason: str = "") -> str:
    """Return what a log may have of a response: its status and size, and Ringback's own reason."""
    return f"HTTP {response.status} with {response.size} bytes{reason and f': {reason}'}"


def _unusable(response: PiAPIResponse) -> str:
    return f"HTTP {response.status} with a response that cannot be used: {response.message}"
