"""What an answer to a call means for the task, by the rules that hold for every provider.

The rules for create calls are those of `receiver.providers.piapi.outcomes`, which says why; what an API knows better
than its HTTP status it says by `judge`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from receiver.domain.updates import Source
from receiver.providers.api import API, Judgement, Request
from receiver.providers.base import (
    PROVIDER_UNAUTHORIZED,
    Accepted,
    Cancelled,
    CancelOutcome,
    CancelRequested,
    FailedAttempt,
    FetchOutcome,
    Found,
    MalformedUpdate,
    Missing,
    NewTask,
    NoAnswer,
    NotMade,
    ProviderTask,
    Refused,
    SubmitOutcome,
    UnknownOutcome,
)
from receiver.providers.calls import CallResponse, NotSent, ResponseLost
from receiver.providers.statuses import GONE, LOST_AT_GATEWAY, NOT_MADE, PROVIDER_FAULTS, REDIRECTS, TEMPORARY

_LATER_OR_MADE = TEMPORARY - NOT_MADE
"""Refusals that pass, of a call that may have made a task all the same: a server that waits no longer (408)."""

_LARGEST_DETAIL = 4096

MadeCall = CallResponse | NotSent | ResponseLost
T = TypeVar("T")


def unauthorized(provider: str, account: str, words: str) -> Refused:
    """Return the refusal of an account's key, so that no client takes it for a refusal of its own key."""
    message = f"{provider} does not accept the key of account {account!r}, it is missing or wrong: {words}"
    return Refused(502, message, envelope(502, message, PROVIDER_UNAUTHORIZED), PROVIDER_UNAUTHORIZED)


def envelope(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of a refusal in the form in which clients of PiAPI read one."""
    body: dict[str, Any] = {"code": status, "data": None, "message": message}
    return body if code is None else {**body, "error": {"code": code}}


def judged(api: API, answer: CallResponse) -> Judgement:
    """Return what an answer means, by the API's own words or by its status."""
    if (own := api.judge(answer)) != Judgement.BY_STATUS:
        return own
    if answer.status == 401:
        return Judgement.UNAUTHORIZED
    if answer.status == 402:
        return Judgement.NO_MONEY
    if answer.status in TEMPORARY:
        return Judgement.LATER
    return Judgement.REFUSED if 400 <= answer.status < 500 else Judgement.BY_STATUS


def submit_outcome(outcome: MadeCall, api: API, task: NewTask, account: str) -> SubmitOutcome:
    """Return the outcome of a create call."""
    if isinstance(outcome, NotSent):
        return NotMade(outcome.message, outcome.retry_after)
    if isinstance(outcome, ResponseLost):
        return UnknownOutcome(outcome.message)
    message = api.message(outcome)
    match judged(api, outcome):
        case Judgement.UNAUTHORIZED:
            return unauthorized(api.name, account, message)
        case Judgement.LATER if outcome.status in _LATER_OR_MADE and api.judge(outcome) == Judgement.BY_STATUS:
            return UnknownOutcome(message, seen=seen(outcome))
        case Judgement.NO_MONEY:
            return Refused(402, message, envelope(402, message))
        case Judgement.LATER:
            return NotMade(message, outcome.retry_after, seen=seen(outcome))
        case Judgement.REFUSED | Judgement.MISSING:
            status = outcome.status if 400 <= outcome.status < 500 else 400
            return Refused(status, message, envelope(status, message), detail=_detail(outcome))
    return _by_status(outcome, api, task, message)


def _by_status(answer: CallResponse, api: API, task: NewTask, message: str) -> SubmitOutcome:
    status = answer.status
    if 200 <= status < 300:
        try:
            update = api.read_created(answer, task)
        except MalformedUpdate as error:
            return UnknownOutcome(f"the provider's response cannot be used: {error}", seen=seen(answer))
        return Accepted(replace(update, source=Source.SUBMIT))
    if status == 503 and LOST_AT_GATEWAY.search(message):
        return UnknownOutcome(message, seen=seen(answer))
    if status in NOT_MADE:
        return NotMade(message, answer.retry_after, seen=seen(answer))
    if status in REDIRECTS:
        return FailedAttempt(status, f"the provider redirects (HTTP {status}): check the account's base URL")
    if status in PROVIDER_FAULTS:
        if not (api.capabilities.lists or api.capabilities.finds):
            return FailedAttempt(status, message)  # nothing could ever tell whether it made the task
        return UnknownOutcome(message, status, seen=seen(answer))
    return UnknownOutcome(message, seen=seen(answer))


def fetch_outcome(outcome: MadeCall, api: API, task: ProviderTask, account: str) -> FetchOutcome | Request:
    """Return the outcome of a look at a task, or the request for its result."""
    if (failed := failed_look(outcome, api, account)) is not None:
        return failed
    assert isinstance(outcome, CallResponse)  # noqa: S101 - the others are failed looks
    update = _read(outcome, lambda: api.read_look(outcome, task))
    return update if isinstance(update, Request | NoAnswer) else found(update, task)


def result_outcome(outcome: MadeCall, api: API, task: ProviderTask, look: CallResponse, account: str) -> FetchOutcome:
    """Return the outcome of the second call, for a task's result."""
    if not isinstance(outcome, CallResponse) or not api.is_result(outcome):
        failed = failed_look(outcome, api, account)
        return failed or NoAnswer(_unusable(api, outcome), seen=seen(outcome))
    update = _read(outcome, lambda: api.read_result(outcome, task, look))
    return update if isinstance(update, NoAnswer) else found(update, task)


def found_outcome(outcome: MadeCall, api: API, reference: str, account: str) -> FetchOutcome | Request:
    """Return the outcome of a look for a task by our reference, or the request for the next page."""
    if (failed := failed_look(outcome, api, account)) is not None:
        return failed
    assert isinstance(outcome, CallResponse)  # noqa: S101 - the others are failed looks
    read = _read(outcome, lambda: api.read_found(outcome, reference))
    if read is None:
        return Missing("the provider has no task with our reference", seen(outcome))
    return read if isinstance(read, Request | NoAnswer) else Found(replace(read, source=Source.POLL))


def found(update: Any, task: ProviderTask) -> FetchOutcome:
    """Return the update as that of this task, unless it is another's; the id of one that was found is its own."""
    if task.id and update.provider_task_id not in (None, task.id):
        return NoAnswer("the provider's response is about another task")
    return Found(replace(update, source=Source.POLL, provider_task_id=task.id or update.provider_task_id))


def failed_look(outcome: MadeCall, api: API, account: str) -> Missing | NoAnswer | None:
    """Return the outcome of a look that shows nothing of the task; None for one that was answered."""
    if isinstance(outcome, NotSent):
        return NoAnswer(outcome.message, outcome.retry_after)
    if isinstance(outcome, ResponseLost):
        return NoAnswer(outcome.message)
    message, judgement = api.message(outcome), judged(api, outcome)
    if judgement == Judgement.UNAUTHORIZED:
        words = unauthorized(api.name, account, message).message
        return NoAnswer(words, outcome.retry_after, seen=seen(outcome), unauthorized=True)
    # A gateway's page is no word of the provider's: its own is JSON.
    is_missing = judgement == Judgement.MISSING or (outcome.status in GONE and outcome.body is not None)
    if is_missing:
        return Missing(message, seen(outcome))
    if judgement != Judgement.BY_STATUS or not 200 <= outcome.status < 300:
        return NoAnswer(message, outcome.retry_after, seen=seen(outcome))
    return None


def cancel_outcome(outcome: MadeCall, api: API, account: str) -> CancelOutcome:
    """Return the outcome of a cancel call."""
    failed = failed_look(outcome, api, account)
    if failed is None and isinstance(outcome, CallResponse):
        if api.is_cancelled(outcome):
            return Cancelled("success")
        return CancelRequested("the provider was asked to cancel the task; it may complete all the same")
    if isinstance(outcome, CallResponse) and isinstance(failed, NoAnswer):
        message = api.message(outcome)
        match judged(api, outcome):
            case Judgement.UNAUTHORIZED:
                return unauthorized(api.name, account, message)
            case Judgement.REFUSED | Judgement.NO_MONEY:
                status = outcome.status if 400 <= outcome.status < 500 else 400
                return Refused(status, message, envelope(status, message), detail=_detail(outcome))
    return failed or NoAnswer(_unusable(api, outcome))


def seen(outcome: MadeCall) -> str:
    """Return what a log may have of a response: its status and size."""
    return f"HTTP {outcome.status} with {outcome.size} bytes" if isinstance(outcome, CallResponse) else ""


def _read(answer: CallResponse, read: Callable[[], T]) -> T | NoAnswer:
    """Return what `read` makes of an answer about a task; `NoAnswer` for one in which it is not as it must be."""
    try:
        return read()
    except MalformedUpdate as error:
        return NoAnswer(f"the provider's response cannot be used: {error}", seen=seen(answer))


def _unusable(api: API, outcome: MadeCall) -> str:
    return api.message(outcome) if isinstance(outcome, CallResponse) else outcome.message


def _detail(answer: CallResponse) -> Any:
    """Return the body of a refusal, if it says more than its words and is not large."""
    return answer.body if isinstance(answer.body, dict) and answer.size <= _LARGEST_DETAIL else None
