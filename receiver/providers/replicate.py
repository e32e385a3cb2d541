"""Replicate's predictions. Source of its rules: `receiver/providers/CONTRACTS.md`, "Replicate"."""

import re
from typing import Any
from urllib.parse import quote

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers import fields
from receiver.providers.api import BaseAPI, CannotAsk, Credentials, ListPage, Request, Window
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.capabilities import CallbackScope, CancelScope, Capabilities
from receiver.providers.proofs import verify_standard
from receiver.providers.reports import failure, id_of, object_of, report, status_of
from receiver.providers.webhook_outcomes import Headers, Signature, WebhookOutcome

_WORDS = {
    "starting": TaskStatus.PENDING,
    "queued": TaskStatus.PENDING,
    "processing": TaskStatus.PROCESSING,
    "succeeded": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "aborted": TaskStatus.FAILED,  # its deadline passed before it began
    "canceled": TaskStatus.CANCELLED,
    "cancelled": TaskStatus.CANCELLED,
}
_MODEL = re.compile(r"(?:deployments/)?[\w-][\w.-]*/[\w-][\w.-]*(?::[\w.-]+)?|[0-9a-f]{64}", re.ASCII)
_DEPLOYMENT = "deployments/"
_INTERNAL = "replicate-internal/"
_VERSION = re.compile(r"[0-9a-f]{64}")
_PERCENT = re.compile(r"(?m)^\s{0,20}(\d{1,3})%\|")
_LOGS_READ = 4000
"""Characters at the end of the logs in which a progress bar is looked for."""
_EVENTS = ["start", "completed"]
"""Outputs and logs that grow are asked for instead: they could come twice a second."""


class Replicate(BaseAPI):
    """Replicate. A task's `model` is `owner/name`, `owner/name:version`, a version or `deployments/owner/name`."""

    name = "replicate"
    base_url = "https://api.replicate.com"
    capabilities = Capabilities(
        callback=CallbackScope.TASK,
        proofs=("standard webhooks",),
        cancels=CancelScope.ANY,
        lists=True,
        output_seconds=3600,
    )

    def create(self, task: NewTask) -> Request:
        """Return the call that creates a prediction; `input` is the model's own."""
        if _MODEL.fullmatch(task.model) is None:
            message = "model must be owner/name, owner/name:version, a version's id or deployments/owner/name"
            raise CannotAsk(f"{message}, not {task.model[:100]!r}")
        body: dict[str, Any] = {"input": task.input}
        if task.webhook_url is not None:
            body |= {"webhook": task.webhook_url, "webhook_events_filter": _EVENTS}
        if task.model.startswith(_DEPLOYMENT):
            return Request(method="POST", url=f"/v1/{task.model}/predictions", body=body)
        return Request(method="POST", url="/v1/predictions", body={"version": task.model, **body})

    def read_created(self, answer: CallResponse, task: NewTask) -> ProviderUpdate:
        """Return the prediction."""
        return _prediction(answer.body)

    def look(self, task: ProviderTask) -> Request:
        """Return the request for a prediction."""
        return Request(method="GET", url=f"/v1/predictions/{quote(task.id, safe='')}")

    def read_look(self, answer: CallResponse, task: ProviderTask) -> ProviderUpdate | Request:
        """Return the prediction."""
        return _prediction(answer.body)

    def cancel(self, task: ProviderTask) -> Request:
        """Return the request that cancels a prediction."""
        return Request(method="POST", url=f"/v1/predictions/{quote(task.id, safe='')}/cancel")

    def is_cancelled(self, answer: CallResponse) -> bool:
        """Return whether the prediction in the answer is cancelled; it may still be running."""
        status, _ = status_of(answer.body.get("status") if isinstance(answer.body, dict) else "", _WORDS)
        return status == TaskStatus.CANCELLED

    def page(self, window: Window) -> Request:
        """Return the newest predictions since the window's beginning."""
        params = {"created_after": window.since.isoformat()}
        if window.until is not None:
            params["created_before"] = window.until.isoformat()
        return Request(method="GET", url="/v1/predictions", params=params)

    def read_page(self, answer: CallResponse, window: Window) -> ListPage:
        """Return the predictions of a page, but not those of other models; the next one's address is in it."""
        body = object_of(answer.body)
        results, following = body.get("results"), body.get("next")
        if not isinstance(results, list):
            raise MalformedUpdate("results must be a list")
        # A filter that is ignored must not make the whole history be read.
        is_before = bool(results) and _is_before(results[-1], window)
        more = Request(method="GET", url=following) if isinstance(following, str) and not is_before else None
        predictions = [each for each in results if isinstance(each, dict)]
        return ListPage([each for each in predictions if not _is_of_another(each, window.model)], more)

    def parse_task(self, task: dict[str, Any]) -> ProviderUpdate:
        """Return a prediction of the list."""
        return _prediction(task)

    def account(self) -> Request:
        """Return the request for the account."""
        return Request(method="GET", url="/v1/account")

    def signing_keys(self) -> Request | None:
        """Return the request for the account's signing secret."""
        return Request(method="GET", url="/v1/webhooks/default/secret")

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Check the signature (Standard Webhooks)."""
        secret = keys.get("key") if isinstance(keys, dict) else None
        return verify_standard(secret if isinstance(secret, str) else "", body, headers, now)

    def parse_webhook(self, value: Any) -> WebhookOutcome:
        """Return the prediction that a webhook has."""
        return _prediction(value)


def _prediction(value: Any) -> ProviderUpdate:
    body = object_of(value)
    status, word = status_of(body.get("status"), _WORDS)
    error = failure(None, body.get("error")) if status == TaskStatus.FAILED else None
    logs = body.get("logs")
    meta = {name: body[name] for name in ("metrics", "data_removed") if body.get(name)}
    return report(
        status,
        word=word,
        provider_task_id=id_of(body, "id"),
        input=body.get("input"),
        output=body.get("output"),
        error=error,
        progress=_progress(logs),
        logs=[logs] if isinstance(logs, str) and logs else None,
        meta=meta or None,
        created_at=fields.read_time(body.get("created_at")),
        started_at=fields.read_time(body.get("started_at")),
        ended_at=fields.read_time(body.get("completed_at")),
    )


def _is_of_another(item: dict[str, Any], asked: str) -> bool:
    """Return whether a prediction is certainly of another model than the one that was asked for.

    Often one input is tried with several models, so that it does not tell whose prediction it is. A deployment runs a
    model of another name, and an official model may be called by an internal one.
    """
    made, version = item.get("model"), item.get("version")
    name, _, wanted = asked.partition(":")
    if "/" not in name:
        name, wanted = "", name
    if isinstance(version, str) and _VERSION.fullmatch(version) and _VERSION.fullmatch(wanted) and version != wanted:
        return True
    is_named = isinstance(made, str) and "/" in made and not made.startswith(_INTERNAL)
    return is_named and name != "" and not name.startswith(_DEPLOYMENT) and str(made).lower() != name.lower()


def _progress(logs: Any) -> int:
    """Return the percentage of the last progress bar in the logs, 0 if there is none."""
    found = _PERCENT.findall(logs[-_LOGS_READ:]) if isinstance(logs, str) else []
    return min(int(found[-1]), 100) if found else 0


def _is_before(item: Any, window: Window) -> bool:
    made = fields.read_time(item.get("created_at")) if isinstance(item, dict) else None
    return made is not None and made < window.since
