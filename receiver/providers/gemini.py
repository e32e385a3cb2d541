"""Google's Gemini: videos, interactions and batches. Its rules are from `receiver/providers/CONTRACTS.md`, "Gemini"."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from receiver.domain.updates import ProviderUpdate
from receiver.providers.api import BaseAPI, CannotAsk, Credentials, Judgement, Request
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.capabilities import CallbackScope, CancelScope, Capabilities
from receiver.providers.gemini_answers import BASE_URL, BATCH, NAME, OPERATION, is_text, read_task
from receiver.providers.proofs import header, verify_standard_public
from receiver.providers.reports import id_of, object_of
from receiver.providers.webhook_outcomes import ChallengeAnswer, Headers, LookNow, Signature, WebhookOutcome

_MODEL = re.compile(r"(?:models/)?([\w.-]+)", re.ASCII)
_INTERACTION_ID = "v1_"
_EVENTS = ("video.", "interaction.", "batch.")
_WRONG_KEY = "API_KEY_INVALID"
_NO_KEY = re.compile(r"unregistered callers", re.IGNORECASE)
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class Gemini(BaseAPI):
    """Gemini. A task's type is `video` (a long-running operation), `interaction` or `batch`; its id is the name there.

    `input` is the body of the create call in Google's own form.
    """

    name = "gemini"
    base_url = BASE_URL
    capabilities = Capabilities(
        callback=CallbackScope.TASK,
        proofs=("ed25519 with a JWKS",),
        is_thin=True,
        cancels=CancelScope.ANY,
        output_seconds=2 * 3600,
        outputs_need_key=True,
    )

    def auth(self, credentials: Credentials, now: float) -> Mapping[str, str]:
        """Return the key in Google's own header: in the query it would be in the logs of proxies."""
        return {"x-goog-api-key": credentials["api_key"]}

    def create(self, task: NewTask) -> Request:
        """Return the call that begins a video, an interaction or a batch."""
        model = _MODEL.fullmatch(task.model)
        if model is None:
            raise CannotAsk(f"model must be a model's name, such as veo-3.1-generate-preview, not {task.model[:100]!r}")
        match task.task_type:
            case "" | "video":
                body = _with_webhook(task.input, "webhookConfig", task.webhook_url)
                return Request(method="POST", url=f"/v1beta/models/{model[1]}:predictLongRunning", body=body)
            case "batch":
                given = task.input.get("batch")
                batch = _with_webhook(given if isinstance(given, dict) else {}, "webhookConfig", task.webhook_url)
                body = {**task.input, "batch": batch}
                return Request(method="POST", url=f"/v1beta/models/{model[1]}:batchGenerateContent", body=body)
            case "interaction":
                return Request(method="POST", url="/v1beta/interactions", body=_interaction_body(task, model[1]))
        raise CannotAsk(f"task_type must be video, interaction or batch, not {task.task_type[:100]!r}")

    def read_created(self, answer: CallResponse, task: NewTask) -> ProviderUpdate:
        """Return what was begun."""
        body = object_of(answer.body)
        return read_task(_checked(id_of(body, "id" if task.task_type == "interaction" else "name")), body)

    def look(self, task: ProviderTask) -> Request:
        """Return the request for a task, by the form of its name."""
        return Request(method="GET", url=_url(task.id))

    def read_look(self, answer: CallResponse, task: ProviderTask) -> ProviderUpdate | Request:
        """Return the operation, interaction or batch."""
        return read_task(task.id, object_of(answer.body))

    def cancel(self, task: ProviderTask) -> Request:
        """Return the request that cancels an interaction or a batch. Raises `CannotAsk` for a video."""
        if OPERATION.fullmatch(task.id):
            raise CannotAsk("gemini cannot cancel a video that it has begun")
        return Request(method="POST", url=f"{_url(task.id)}{':' if task.id.startswith(BATCH) else '/'}cancel")

    def is_cancelled(self, answer: CallResponse) -> bool:
        """Return whether it is cancelled now: for a batch the answer is empty, and it ends later."""
        body = answer.body if isinstance(answer.body, dict) else {}
        return body.get("status") == "cancelled"

    def account(self) -> Request:
        """Return the request for one model."""
        return Request(method="GET", url="/v1beta/models", params={"pageSize": "1"})

    def judge(self, answer: CallResponse) -> Judgement:
        """Return what the reason says: a wrong key is a 400 here, and a missing one a 403.

        The error in a success is that of the task which it shows.
        """
        if answer.status < 400:
            return Judgement.BY_STATUS
        error = _error_of(answer.body)
        details = error.get("details")
        listed = details if isinstance(details, list) else []
        reasons = {each.get("reason") for each in listed if isinstance(each, dict) and is_text(each.get("reason"))}
        if _WRONG_KEY in reasons or (answer.status == 403 and _NO_KEY.search(self.message(answer))):
            return Judgement.UNAUTHORIZED
        is_unpaid = error.get("status") == "FAILED_PRECONDITION" and "billing" in self.message(answer).lower()
        return Judgement.NO_MONEY if is_unpaid else Judgement.BY_STATUS

    def signing_keys(self) -> Request | None:
        """Return the request for the public keys."""
        return Request(method="GET", url="/.well-known/jwks.json")

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Check the ed25519 signature (Standard Webhooks, `v1a`), which any of the keys may have made.

        The documentation speaks of a JWT instead. Nothing in one is about the body, so it is not checked: the token in
        the path was right, and the task is asked for.
        """
        if _JWT.fullmatch(header(headers, "webhook-signature")):
            return Signature.UNCHECKED
        return verify_standard_public(keys, body, headers, now)

    def parse_webhook(self, value: Any) -> WebhookOutcome:
        """Return which task has news; without a name for it where the event's id is not in a form that we can ask for.

        An event of another kind is only acknowledged.
        """
        event = object_of(value)
        kind, data = str(event.get("type")), event.get("data")
        if not kind.startswith(_EVENTS):
            return ChallengeAnswer(b"{}")
        name = data.get("id") if isinstance(data, dict) else None
        return LookNow(name if is_text(name) and _can_be_asked_for(name) else None)


def _can_be_asked_for(name: str) -> bool:
    is_known = OPERATION.fullmatch(name) or name.startswith((BATCH, _INTERACTION_ID))
    return bool(is_known) and NAME.fullmatch(name) is not None


def _with_webhook(given: dict[str, Any], name: str, url: str | None) -> dict[str, Any]:
    """Return a body with our address added to those that it names itself."""
    if url is None:
        return dict(given)
    own = given.get(name)
    config = own if isinstance(own, dict) else {}
    uris = config.get("uris")
    return {**given, name: {**config, "uris": [*(uris if isinstance(uris, list) else []), url]}}


def _interaction_body(task: NewTask, model: str) -> dict[str, Any]:
    given = task.input
    if given.get("stream") or given.get("background") is False:
        raise CannotAsk("an interaction is created in the background: leave out background and stream")
    by = {} if "agent" in given else {"model": model}
    return {**_with_webhook(given, "webhook_config", task.webhook_url), **by, "background": True}


def _checked(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise MalformedUpdate("the name of the task is not in a form that can be asked for")
    return name


def _url(name: str) -> str:
    is_path = OPERATION.fullmatch(name) or name.startswith(BATCH)
    return f"/v1beta/{quote(name, safe='/')}" if is_path else f"/v1beta/interactions/{quote(name, safe='')}"


def _error_of(body: Any) -> dict[str, Any]:
    """Return the error of an answer, {} if it has none; some have it in a list."""
    first = body[0] if isinstance(body, list) and body else body
    error = first.get("error") if isinstance(first, dict) else None
    return error if isinstance(error, dict) else {}
