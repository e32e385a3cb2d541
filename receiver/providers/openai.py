"""OpenAI's background responses and batches. Source of its rules: `receiver/providers/CONTRACTS.md`, "OpenAI"."""

from typing import Any
from urllib.parse import quote

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers import fields
from receiver.providers.api import BaseAPI, CannotAsk, Credentials, Judgement, Request
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.capabilities import CallbackScope, CancelScope, Capabilities
from receiver.providers.proofs import verify_standard
from receiver.providers.reports import failure, id_of, object_of, report, status_of
from receiver.providers.webhook_outcomes import ChallengeAnswer, Headers, LookNow, Signature, WebhookOutcome

_BASE_URL = "https://api.openai.com"
_RESPONSE_TYPES = frozenset({"", "response"})
_BATCH_TYPE = "batch"
_BATCH_ID = "batch_"
_RESPONSE_WORDS = {
    "queued": TaskStatus.PENDING,
    "in_progress": TaskStatus.PROCESSING,
    "completed": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
    "incomplete": TaskStatus.FAILED,  # cut, by its length or by a filter
}
_BATCH_WORDS = {
    "validating": TaskStatus.PENDING,
    "in_progress": TaskStatus.PROCESSING,
    "finalizing": TaskStatus.PROCESSING,
    "cancelling": TaskStatus.PROCESSING,
    "completed": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "expired": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
}
_EVENTS = ("response.", "batch.")
_REFERENCE = "ringback_task"
"""The name in `metadata` under which a task has our own name for it."""
_MOST_METADATA = 16
_MOST_ERRORS = 10
_PAGE = 100
"""The batches on a page of the list."""


class OpenAI(BaseAPI):
    """OpenAI. A task of the type `response` has its `model`; one of the type `batch` has the models in its file."""

    name = "openai"
    base_url = _BASE_URL
    optional_credentials: tuple[str, ...] = ("webhook_secret",)
    capabilities = Capabilities(
        callback=CallbackScope.ACCOUNT,
        proofs=("standard webhooks",),
        is_thin=True,
        cancels=CancelScope.ANY,
        finds=True,
        output_seconds=30 * 86_400,
        outputs_need_key=True,
    )

    def create(self, task: NewTask) -> Request:
        """Return the call that creates a background response, or a batch of a file that is there already."""
        body = _with_reference(task.input, task.reference)
        if task.task_type == _BATCH_TYPE:
            return Request(method="POST", url="/v1/batches", body=body)
        if task.task_type not in _RESPONSE_TYPES:
            raise CannotAsk(f"task_type must be response or batch, not {task.task_type[:100]!r}")
        if body.get("stream") or body.get("background") is False:
            raise CannotAsk("a response is created in the background: leave out background and stream")
        return Request(method="POST", url="/v1/responses", body={**body, "model": task.model, "background": True})

    def read_created(self, answer: CallResponse, task: NewTask) -> ProviderUpdate:
        """Return the response or batch."""
        return _update(answer.body)

    def look(self, task: ProviderTask) -> Request:
        """Return the request for a response or batch, by the form of its id."""
        return Request(method="GET", url=_url(task))

    def read_look(self, answer: CallResponse, task: ProviderTask) -> ProviderUpdate | Request:
        """Return the response or batch. The files of a batch are not read: they may be larger than any answer."""
        return _update(answer.body)

    def cancel(self, task: ProviderTask) -> Request:
        """Return the request that cancels a response or batch."""
        return Request(method="POST", url=f"{_url(task)}/cancel")

    def is_cancelled(self, answer: CallResponse) -> bool:
        """Return whether it is cancelled now: a batch may be `cancelling` for ten minutes."""
        body = answer.body if isinstance(answer.body, dict) else {}
        return body.get("status") == "cancelled"

    def find(self, reference: str, model: str, task_type: str) -> Request | None:
        """Return the request for the newest batches. Responses are in no list: only their webhooks name them."""
        is_batch = task_type == _BATCH_TYPE
        return Request(method="GET", url="/v1/batches", params={"limit": str(_PAGE)}) if is_batch else None

    def read_found(self, answer: CallResponse, reference: str) -> ProviderUpdate | Request | None:
        """Return the batch whose metadata has our reference, or the request for the next page."""
        body = object_of(answer.body)
        batches = body.get("data")
        if not isinstance(batches, list):
            raise MalformedUpdate("data must be a list")
        for each in batches:
            if isinstance(each, dict) and _reference(each) == reference:
                return _update(each)
        if not batches or not body.get("has_more"):
            return None
        params = {"limit": str(_PAGE), "after": id_of(object_of(batches[-1]), "id")}
        return Request(method="GET", url="/v1/batches", params=params)

    def account(self) -> Request:
        """Return the request for the list of models."""
        return Request(method="GET", url="/v1/models")

    def judge(self, answer: CallResponse) -> Judgement:
        """Return `NO_MONEY` for a used-up quota: it has the status of a rate limit, but waiting does not help.

        The error in a success is that of the response which it shows.
        """
        is_unpaid = answer.status >= 400 and _code(answer) == "insufficient_quota"
        return Judgement.NO_MONEY if is_unpaid else Judgement.BY_STATUS

    def message(self, answer: CallResponse) -> str:
        """Return the words of the error, without those about a wrong key, which repeat a part of it."""
        if answer.status == 401:
            return f"HTTP 401, {_code(answer) or 'no code'}"
        return super().message(answer)

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Check the signature (Standard Webhooks). Without the account's secret none is good."""
        return verify_standard(credentials.get("webhook_secret", "").strip(), body, headers, now)

    def parse_webhook(self, value: Any) -> WebhookOutcome:
        """Return which response or batch has ended. An event of another kind is only acknowledged."""
        event = object_of(value)
        if not str(event.get("type")).startswith(_EVENTS):
            return ChallengeAnswer(b"{}")
        return LookNow(id_of(object_of(event.get("data")), "id"))


def _url(task: ProviderTask) -> str:
    kind = "batches" if task.id.startswith(_BATCH_ID) else "responses"
    return f"/v1/{kind}/{quote(task.id, safe='')}"


def _with_reference(given: dict[str, Any], reference: str) -> dict[str, Any]:
    """Return the input with our reference in its metadata, where there is room for it."""
    metadata = given.get("metadata")
    own = {} if metadata is None else metadata
    if not reference or not isinstance(own, dict) or len(own.keys() | {_REFERENCE}) > _MOST_METADATA:
        return dict(given)
    return {**given, "metadata": {**own, _REFERENCE: reference}}


def _reference(body: dict[str, Any]) -> str:
    metadata = body.get("metadata")
    found = metadata.get(_REFERENCE) if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else ""


def _code(answer: CallResponse) -> str:
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code[:100] if isinstance(code, str) else ""


def _update(value: Any) -> ProviderUpdate:
    body = object_of(value)
    name = id_of(body, "id")
    return _batch(name, body) if name.startswith(_BATCH_ID) else _response(name, body)


def _response(name: str, body: dict[str, Any]) -> ProviderUpdate:
    status, word = status_of(body.get("status"), _RESPONSE_WORDS)
    is_cut = body.get("status") == "incomplete"
    error = None
    if is_cut:
        details = body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        error = failure("incomplete", f"the response is incomplete: {reason or 'no reason given'}")
    elif status == TaskStatus.FAILED:
        given = body.get("error")
        error = failure(given.get("code") if isinstance(given, dict) else None, given)
    return report(
        status,
        word=word,
        provider_task_id=name,
        reference=_reference(body),
        output=_output(body),
        error=error,
        retryable=not is_cut,
        meta=_usage(body),
        created_at=fields.read_time(body.get("created_at")),
        ended_at=fields.read_time(body.get("completed_at")),
    )


def _output(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the items of a response as they are, with their text put together."""
    items = body.get("output")
    if not isinstance(items, list) or not items:
        return None
    contents = [item.get("content") for item in items if isinstance(item, dict) and item.get("type") == "message"]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    texts = [part.get("text") for part in parts if part.get("type") == "output_text"]
    text = "".join(each for each in texts if isinstance(each, str))
    return {"output_text": text, "output": items} if text else {"output": items}


def _batch(name: str, body: dict[str, Any]) -> ProviderUpdate:
    status, word = status_of(body.get("status"), _BATCH_WORDS)
    given = body.get("request_counts")
    counts = {key: _count(given, key) for key in ("total", "completed", "failed")}
    error = _batch_error(str(body.get("status")), body) if status == TaskStatus.FAILED else None
    if status == TaskStatus.COMPLETED and counts["failed"] and not counts["completed"]:
        status = TaskStatus.FAILED  # the batch was done, and nothing of it succeeded
        error = failure("requests_failed", f"all {counts['failed']} requests of the batch failed; see the error file")
    ended = (fields.read_time(body.get(f"{end}_at")) for end in ("completed", "failed", "expired", "cancelled"))
    done = counts["completed"] + counts["failed"]
    return report(
        status,
        word=word,
        provider_task_id=name,
        reference=_reference(body),
        output=_files(body, counts),
        error=error,
        progress=min(100 * done // counts["total"], 100) if counts["total"] else 0,
        meta=_usage(body),
        created_at=fields.read_time(body.get("created_at")),
        started_at=fields.read_time(body.get("in_progress_at")),
        ended_at=next(filter(None, ended), None),
    )


def _batch_error(word: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the error of a batch whose file was refused, or that was not done in time."""
    if word == "expired":
        return failure("expired", "the batch expired before all of its requests were done")
    errors = body.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else None
    found = [each for each in listed if isinstance(each, dict)][:_MOST_ERRORS] if isinstance(listed, list) else []
    words = [f"line {each.get('line')}: {each.get('message')}" for each in found]
    return failure(found[0].get("code") if found else None, words, detail=found)


def _files(body: dict[str, Any], counts: dict[str, int]) -> dict[str, Any] | None:
    """Return the files of a batch, which are there also for one that expired or was cancelled."""
    names = {kind: body.get(f"{kind}_file_id") for kind in ("output", "error")}
    found = {kind: name for kind, name in names.items() if isinstance(name, str) and name}
    if not found:
        return None
    urls = {f"{kind}_file_url": f"{_BASE_URL}/v1/files/{quote(name, safe='')}/content" for kind, name in found.items()}
    return {**{f"{kind}_file_id": name for kind, name in found.items()}, **urls, "request_counts": counts}


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _usage(body: dict[str, Any]) -> dict[str, Any] | None:
    usage = body.get("usage")
    return {"usage": usage} if isinstance(usage, dict) and usage else None
