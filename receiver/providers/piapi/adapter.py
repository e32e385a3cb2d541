"""PiAPI behind the provider protocol (`receiver/providers/piapi/CONTRACT.md`)."""

from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import Any
from urllib.parse import quote

import orjson

from receiver.domain.updates import ProviderUpdate, Source
from receiver.large_bodies import LARGE_BYTES, read_by_size
from receiver.providers.api import Window
from receiver.providers.base import (
    AccountCheck,
    CallerKey,
    CancelOutcome,
    ConfirmSend,
    FetchOutcome,
    History,
    MalformedUpdate,
    Missing,
    NewTask,
    NoAnswer,
    ProviderTask,
    SubmitOutcome,
)
from receiver.providers.capabilities import CallbackScope, CancelScope, Capabilities
from receiver.providers.forwarded import ForwardedRequest, ForwardOutcome
from receiver.providers.measuring import count_call, measured
from receiver.providers.piapi import bodies
from receiver.providers.piapi.calls import CallOutcome, Calls, PiAPIResponse
from receiver.providers.piapi.forwarding import Forwarder
from receiver.providers.piapi.history import read_history
from receiver.providers.piapi.outcomes import (
    cancel_outcome,
    envelope_of,
    fetch_outcome,
    is_unauthorized,
    refusal,
    submit_outcome,
    unauthorized,
)
from receiver.providers.piapi.tasks import read_task
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.webhook_outcomes import Headers, Signature


class PiAPI:
    """PiAPI's unified task API. It owns its connections: call `aclose` when done.

    `timeout` (seconds) bounds each phase of a call: a call waits at most `timeout` for the rate limit, and then takes
    at most 5 + 3 × `timeout` in total. `forward_timeout` (seconds) bounds each silence of a forwarded request.
    `upload_url` is where files are uploaded; None if it is `base_url`. `trusts_503` says whether a 503 to a create call
    means that no task was made. At most `concurrency` calls about tasks are open at a time. `account` is the name of
    the account of the database whose adapter it is, "" for that of the environment.
    """

    name = "piapi"
    capabilities = Capabilities(
        callback=CallbackScope.TASK,
        sends_secret=True,
        cancels=CancelScope.QUEUED,
        lists=True,
    )
    credential_names = ("api_key",)
    optional_credentials = ()

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        timeout: float,
        rate_limiter: RateLimiter,
        upload_url: str | None = None,
        forward_timeout: float = 300.0,
        trusts_503: bool = True,
        concurrency: int | None = None,
        account: str = "",
    ) -> None:
        key = (api_key or "").strip()
        self._account = account
        self._key_fault = _key_fault(key, account)
        self._key_refusal: str | None = None
        self._trusts_503 = trusts_503
        self._calls = Calls(
            base_url=base_url, api_key=key, timeout=timeout, rate_limiter=rate_limiter, concurrency=concurrency
        )
        self._forwarder = Forwarder(
            base_url=base_url,
            upload_url=upload_url or base_url,
            api_key=key,
            key_fault=self._key_fault,
            wait=timeout,
            idle=forward_timeout,
            rate_limiter=rate_limiter,
        )

    async def submit(
        self, task: NewTask, *, caller: CallerKey | None = None, confirm: ConfirmSend | None = None
    ) -> SubmitOutcome:
        """Create the task, with Ringback's webhook in place of the client's, unless `confirm` returns False.

        Then the outcome is `NotMade`. Raises nothing for what PiAPI or the network does.
        """
        return await measured(self.name, "submit", self._submit(task, caller, confirm))

    async def fetch(
        self, task: ProviderTask, *, attempt: int | None, hidden: str = "", caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Poll one task; the update carries `attempt`. `hidden` is a secret that is redacted from the response."""
        return await measured(self.name, "fetch", self._fetch(task.id, attempt, hidden, caller))

    async def cancel(self, task: ProviderTask, *, caller: CallerKey | None = None) -> CancelOutcome:
        """Ask PiAPI to cancel one task. PiAPI cancels only pending ones, and not those of every model."""
        return await measured(self.name, "cancel", self._cancel(task.id, caller))

    async def history(
        self,
        *,
        model: str,
        since: datetime,
        until: datetime | None = None,
        keep: Callable[[dict[str, Any]], bool] | None = None,
        caller: CallerKey | None = None,
    ) -> History:
        """Return PiAPI's list of the tasks of `model` of this time, as `receiver.providers.piapi.history` reads it.

        Without a usable key nothing is asked, and the list is not complete.
        """
        began = monotonic()
        if self._key_fault:
            count_call(self.name, "history", "unauthorized", began)
            return History([], is_complete=False)
        found = await read_history(self._calls, Window(model, since, until), keep or _keep_all, caller)
        count_call(self.name, "history", "found" if found.is_complete else "no_answer", began)
        return found

    async def find(
        self, reference: str, *, model: str, task_type: str, attempt: int | None, caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Never called: PiAPI takes no reference."""
        raise NotImplementedError

    async def account_info(self) -> tuple[int, dict[str, Any]]:
        """Return PiAPI's own status and body for `GET /account/info`, to be passed on.

        502 without a usable key, with one that PiAPI refuses, and without an answer.
        """
        began = monotonic()
        if self._key_fault:
            count_call(self.name, "account_info", "unauthorized", began)
            return 502, unauthorized(self._key_fault, self._account).body
        outcome = await self._call("GET", "/account/info")
        if not isinstance(outcome, PiAPIResponse):
            count_call(self.name, "account_info", "no_answer", began)
            return 502, envelope_of(502, outcome.message)
        if is_unauthorized(outcome):
            count_call(self.name, "account_info", "unauthorized", began)
            return 502, unauthorized(outcome.message, self._account).body
        count_call(self.name, "account_info", "found" if outcome.effective_status in (None, 200) else "refused", began)
        if isinstance(outcome.body, dict):
            return outcome.status, outcome.body
        if 200 <= outcome.status < 400:  # a web page, say: a success without an account would mislead the client
            return 502, envelope_of(502, f"the provider's response cannot be used: {outcome.message}")
        return outcome.status, envelope_of(outcome.status, outcome.message)

    async def check_account(self) -> AccountCheck:
        """Ask for the account as `account_info` does; return what the answer shows."""
        began = monotonic()
        if self._key_fault:
            return AccountCheck(is_reached=False, is_asked=False, fault=self._key_fault)
        outcome = await self._call("GET", "/account/info")
        if not isinstance(outcome, PiAPIResponse):
            count_call(self.name, "account_info", "no_answer", began)
            return AccountCheck(is_reached=False, fault=outcome.message)
        is_found = outcome.effective_status == 200 and not is_unauthorized(outcome)
        count_call(self.name, "account_info", "found" if is_found else "refused", began)
        if is_unauthorized(outcome):
            fault = unauthorized(outcome.message, self._account).message
        else:
            fault = "" if is_found else f"HTTP {outcome.status}: {outcome.message}"
        data = outcome.body.get("data") if isinstance(outcome.body, dict) else None
        credits = data.get("credits") if isinstance(data, dict) else None
        return AccountCheck(
            is_reached=True,
            fault=fault,
            date=outcome.date,
            calls_left=outcome.calls_left,
            credits=float(credits) if isinstance(credits, int | float) else None,
        )

    async def forward(self, request: ForwardedRequest, *, caller: CallerKey | None = None) -> ForwardOutcome:
        """Pass a request on to PiAPI, with Ringback's own key; return the answer when its headers have arrived."""
        return await measured(self.name, "forward", self._forwarder.forward(request, caller))

    def task_in_answer(self, body: bytes) -> ProviderUpdate | None:
        """Return the task in a body of the form `{"code", "data": {"task_id", ...}}`, None if it is no such body."""
        try:
            answer = bodies.read_body(body)
            is_envelope = isinstance(answer, dict) and "code" in answer and isinstance(answer.get("data"), dict)
            if not is_envelope or not answer["data"].get("task_id"):
                return None
            return read_task(answer, source=Source.POLL)
        except MalformedUpdate:
            return None

    async def check_signature(self, body: bytes, headers: Headers) -> Signature:
        """PiAPI signs nothing: it sends back the secret that it was given (`receiver.inbound`)."""
        return Signature.VALID

    def parse_webhook(self, body: bytes, *, attempt: int | None = None, hidden: str = "") -> ProviderUpdate:
        """Turn an inbound webhook's body into an update, without the secret `hidden`. Raises `MalformedUpdate`."""
        return read_task(bodies.read_body(body, (hidden,)), source=Source.WEBHOOK, attempt=attempt)

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        """Turn one item of `history` into an update (source `poll`). Raises `MalformedUpdate`."""
        try:
            body = orjson.dumps(task)
        except orjson.JSONEncodeError:
            raise MalformedUpdate("the task cannot be written as JSON") from None
        return read_task(bodies.read_body(body), source=Source.POLL, attempt=attempt)

    def redact(self, body: bytes, *, hidden: str = "") -> str:
        """Return an inbound body as text without the secrets that it echoes, nor `hidden`. Never raises."""
        return bodies.redact(body, (hidden,))

    def key_refusal(self) -> str | None:
        """Return why PiAPI refused the key at the last call, or that there is none; None if it did not."""
        return self._key_refusal

    def paused_for(self) -> float:
        """Return the seconds until the end of the pause that PiAPI asked for; 0 if there is none."""
        return self._calls.rate_limiter.paused_for()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._calls.aclose()
        await self._forwarder.aclose()

    async def _call(self, method: str, path: str, **more: Any) -> CallOutcome:
        outcome = await self._calls.call(method, path, **more)
        if isinstance(outcome, PiAPIResponse):
            # A large response is no refusal, and is not searched for its words here.
            is_refused = outcome.size <= LARGE_BYTES and is_unauthorized(outcome)
            self._key_refusal = unauthorized(outcome.message, self._account).message if is_refused else None
        return outcome

    async def _submit(self, task: NewTask, caller: CallerKey | None, confirm: ConfirmSend | None) -> SubmitOutcome:
        if self._key_fault:
            refused = unauthorized(self._key_fault, self._account)
            self._key_refusal = refused.message
            return refused
        try:
            content = orjson.dumps(_create_body(task))
        except orjson.JSONEncodeError:
            return refusal(400, "the task cannot be written as JSON")
        hidden = task.webhook_secret or ""
        outcome = await self._call(
            "POST", "/api/v1/task", content=content, hidden=hidden, caller=caller, confirm=confirm
        )
        return await read_by_size(_size(outcome), lambda: self._submitted(outcome))

    async def _fetch(
        self, provider_task_id: str, attempt: int | None, hidden: str, caller: CallerKey | None
    ) -> FetchOutcome:
        if self._key_fault:
            return NoAnswer(self._key_fault, unauthorized=True)
        path = _task_path(provider_task_id)
        if path is None:
            return Missing("no task at PiAPI can have this id")
        outcome = await self._call("GET", path, hidden=hidden, caller=caller)
        return await read_by_size(
            _size(outcome),
            lambda: fetch_outcome(outcome, provider_task_id, attempt=attempt, account=self._account),
        )

    async def _cancel(self, provider_task_id: str, caller: CallerKey | None) -> CancelOutcome:
        if self._key_fault:
            return unauthorized(self._key_fault, self._account)
        path = _task_path(provider_task_id)
        if path is None:
            return Missing("no task at PiAPI can have this id")
        outcome = await self._call("DELETE", path, caller=caller)
        return await read_by_size(_size(outcome), lambda: cancel_outcome(outcome, self._account))

    def _submitted(self, outcome: CallOutcome) -> SubmitOutcome:
        return submit_outcome(outcome, trusts_503=self._trusts_503, account=self._account)


def _keep_all(_task: dict[str, Any]) -> bool:
    return True


def _key_fault(key: str, account: str) -> str | None:
    """Return why the key cannot be used, without repeating it; None if it can."""
    if not key:
        return f"account {account!r} has no key" if account else "no key for PiAPI is set: set RINGBACK_PIAPI_API_KEY"
    if not (key.isascii() and key.isprintable()):
        name = f"the key of account {account!r}" if account else "RINGBACK_PIAPI_API_KEY"
        return f"{name} has characters that are not allowed in an HTTP header: copy the key again"
    return None


def _create_body(task: NewTask) -> dict[str, Any]:
    config = {name: value for name, value in (task.config or {}).items() if name != "webhook_config"}
    if task.webhook_url is not None:
        config["webhook_config"] = {"endpoint": task.webhook_url, "secret": task.webhook_secret or ""}
    body = {"model": task.model, "task_type": task.task_type, "input": task.input}
    return {**body, "config": config} if config else body


def _task_path(task_id: str) -> str | None:
    # An id of dots alone would be resolved as a relative path, and the call (even DELETE) would go elsewhere.
    return f"/api/v1/task/{quote(task_id, safe='', errors='replace')}" if task_id.strip(".") else None


def _size(outcome: CallOutcome) -> int:
    return outcome.size if isinstance(outcome, PiAPIResponse) else 0
