"""fal's queue API. Source of its rules: `receiver/providers/CONTRACTS.md`, "fal"."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers.api import BaseAPI, CannotAsk, Credentials, Judgement, Request
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.capabilities import CallbackScope, CancelScope, Capabilities
from receiver.providers.proofs import header, is_recent, verify_ed25519
from receiver.providers.reports import failure, id_of, object_of, report, status_of
from receiver.providers.webhook_outcomes import Headers, LookNow, Signature, WebhookOutcome

_WORDS = {
    "in_queue": TaskStatus.PENDING,
    "in_progress": TaskStatus.PROCESSING,
    "completed": TaskStatus.COMPLETED,
}
_MODEL = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)+", re.ASCII)
_NAMESPACES = frozenset({"workflows", "comfy"})
"""Before the owner of an app, where it has no model of its own."""
_NO_RESULT = frozenset({400, 401, 403, 404, 408, 429})
"""Answers to the call for a result that say nothing of the task: any other 4xx is the model's own failure."""
_NO_MONEY = re.compile(r"exhausted balance|top up|insufficient", re.IGNORECASE)
_SIGNED = ("request-id", "user-id", "timestamp")
_URL_NAMES = {"status": "status_url", "result": "response_url", "cancel": "cancel_url"}


class Fal(BaseAPI):
    """fal's queue. A task's `model` is the app's path (`fal-ai/flux/dev`), its `input` the app's own input."""

    name = "fal"
    base_url = "https://queue.fal.run"
    hosts = frozenset({"rest.fal.ai", "api.fal.ai"})
    capabilities = Capabilities(
        callback=CallbackScope.TASK,
        proofs=("ed25519 with a JWKS",),
        cancels=CancelScope.ANY,
        output_seconds=7 * 86_400,
        record_seconds=3600,
    )

    def auth(self, credentials: Credentials, now: float) -> Mapping[str, str]:
        """Return the key in fal's own scheme."""
        return {"authorization": f"Key {credentials['api_key']}"}

    def create(self, task: NewTask) -> Request:
        """Return the call that puts a request into the queue of the app."""
        if _MODEL.fullmatch(task.model) is None:
            raise CannotAsk(f"model must be an app of fal's, such as fal-ai/flux/dev, not {task.model[:100]!r}")
        params = {"fal_webhook": task.webhook_url} if task.webhook_url is not None else {}
        return Request(method="POST", url=f"/{task.model}", params=params, body=task.input)

    def read_created(self, answer: CallResponse, task: NewTask) -> ProviderUpdate:
        """Return the request's id, and the addresses by which it is asked for."""
        body = object_of(answer.body)
        urls = {name: body[field] for name, field in _URL_NAMES.items() if isinstance(body.get(field), str)}
        return report(TaskStatus.PENDING, provider_task_id=id_of(body, "request_id"), handle=urls or None)

    def look(self, task: ProviderTask) -> Request:
        """Return the request for the status, which has no result."""
        return Request(method="GET", url=_url(task, "status", "/status"))

    def read_look(self, answer: CallResponse, task: ProviderTask) -> ProviderUpdate | Request:
        """Return the status; a completed request may have failed, which its result tells."""
        body = object_of(answer.body)
        status, word = status_of(body.get("status"), _WORDS)
        if status != TaskStatus.COMPLETED:
            return report(status, word=word, logs=_logs(body))
        if body.get("error") or body.get("error_type"):
            return report(TaskStatus.FAILED, error=failure(body.get("error_type"), body.get("error")), logs=_logs(body))
        return Request(method="GET", url=_url(task, "result", ""))

    def is_result(self, answer: CallResponse) -> bool:
        """Return whether it is the model's own answer, which has the model's own status; a gateway's page is none."""
        if answer.body is None:
            return False
        if 200 <= answer.status < 300:
            return True
        is_failure = 400 <= answer.status < 500 and answer.status not in _NO_RESULT
        return is_failure or (answer.status >= 500 and isinstance(answer.body, dict) and "error_type" in answer.body)

    def read_result(self, answer: CallResponse, task: ProviderTask, look: CallResponse) -> ProviderUpdate:
        """Return the end of a request that the status called completed."""
        body = look.body if isinstance(look.body, dict) else {}
        meta = {"metrics": body["metrics"]} if isinstance(body.get("metrics"), dict) and body["metrics"] else None
        if 200 <= answer.status < 300:
            return report(TaskStatus.COMPLETED, output=answer.body, logs=_logs(body), meta=meta)
        return report(TaskStatus.FAILED, error=_model_error(answer.status, answer.body), logs=_logs(body), meta=meta)

    def cancel(self, task: ProviderTask) -> Request:
        """Return the request that removes one from the queue, or asks the app to stop."""
        return Request(method="PUT", url=_url(task, "cancel", "/cancel"))

    def is_cancelled(self, answer: CallResponse) -> bool:
        """Return whether it was removed from the queue; an app that is asked to stop may finish all the same."""
        return answer.status == 200

    def account(self) -> Request:
        """Return a list of one request, for which a key is needed."""
        params = {"endpoint_id": "fal-ai/flux/dev", "limit": "1"}
        return Request(method="GET", url="https://api.fal.ai/v1/models/requests/by-endpoint", params=params)

    def judge(self, answer: CallResponse) -> Judgement:
        """Return `NO_MONEY` for an account that is locked because its balance is used up: fal says 403."""
        is_locked = answer.status == 403 and _NO_MONEY.search(self.message(answer)) is not None
        return Judgement.NO_MONEY if is_locked else Judgement.BY_STATUS

    def signing_keys(self) -> Request | None:
        """Return the request for the public keys, which needs no key."""
        return Request(method="GET", url="https://rest.fal.ai/.well-known/jwks.json")

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Check the ed25519 signature over request id, user id, time and the body's digest, a line each."""
        values = [header(headers, f"x-fal-webhook-{name}") for name in _SIGNED]
        if not all(values) or not is_recent(values[-1], now):
            return Signature.WRONG
        signed = "\n".join([*values, hashlib.sha256(body).hexdigest()]).encode("latin-1")
        return verify_ed25519(keys, header(headers, "x-fal-webhook-signature"), signed)

    def parse_webhook(self, value: Any) -> WebhookOutcome:
        """Return the end that a webhook tells. Without its payload it is asked for."""
        body = object_of(value)
        name, payload = id_of(body, "request_id"), body.get("payload")
        match body.get("status"):
            case "OK" if payload is not None:
                return report(TaskStatus.COMPLETED, provider_task_id=name, output=payload)
            case "ERROR":
                error = _model_error(body.get("error"), payload if payload is not None else body.get("error"))
                return report(TaskStatus.FAILED, provider_task_id=name, error=error)
            case "OK":
                return LookNow(name)
        raise MalformedUpdate("status must be OK or ERROR")


def _url(task: ProviderTask, name: str, end: str) -> str:
    """Return an address of a request's: the one that fal gave, else the one that follows from its app."""
    given = (task.handle or {}).get(name)
    if isinstance(given, str):
        return given
    if _MODEL.fullmatch(task.model) is None:
        raise CannotAsk("fal is asked for a task by its app, which is not known of this one")
    parts = task.model.split("/")
    app = parts[: 3 if parts[0] in _NAMESPACES else 2]
    return f"/{'/'.join(quote(part, safe='') for part in app)}/requests/{quote(task.id, safe='')}{end}"


def _logs(body: dict[str, Any]) -> list[Any] | None:
    logs = body.get("logs")
    return logs if isinstance(logs, list) and logs else None


def _model_error(code: Any, body: Any) -> dict[str, Any]:
    """Return the error that a model answered with, without the inputs that it repeats."""
    detail = body.get("detail") if isinstance(body, dict) else body
    if isinstance(detail, list):
        detail = [_without_input(item) for item in detail]
    return failure(code if isinstance(code, int) else None, detail if detail else code)


def _without_input(item: Any) -> Any:
    return {name: value for name, value in item.items() if name != "input"} if isinstance(item, dict) else item
