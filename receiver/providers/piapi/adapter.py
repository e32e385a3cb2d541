"""PiAPI behind the provider protocol (`receiver/providers/piapi/CONTRACT.md`)."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from receiver import telemetry
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers.base import (
    CallerKey,
    CancelOutcome,
    ConfirmSend,
    FetchOutcome,
    MalformedUpdate,
    Missing,
    NewTask,
    NoAnswer,
    SubmitOutcome,
)
from receiver.providers.piapi import bodies, fields
from receiver.providers.piapi.calls import CallResponse, Calls
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

PAGE_SIZE = 100
"""The most that PiAPI's list accepts. Source: `receiver/providers/piapi/CONTRACT.md`, "Lists and account"."""
MOST_PAGES = 3
_LIST_NAMES = ("list", "tasks", "items", "data")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

_OUTCOMES = {
    "Accepted": "accepted",
    "Refused": "refused",
    "NotMade": "not_made",
    "FailedAttempt": "failed_attempt",
    "UnknownOutcome": "unknown",
    "Found": "found",
    "Missing": "missing",
    "NoAnswer": "no_answer",
    "Cancelled": "cancelled",
}
"""The outcomes as the metric names them."""


class PiAPI:
    """PiAPI's unified task API. It owns its connections: call `aclose` when done.

    `timeout` (seconds) bounds each phase of a call: a call waits at most `timeout` for the rate limit, and then takes
    at most 5 + 3 × `timeout` in total.
    """

    name = "piapi"

    def __init__(self, *, base_url: str, api_key: str | None, timeout: float, rate_limiter: RateLimiter) -> None:
        key = (api_key or "").strip()
        self._key_fault = _key_fault(key)
        self._calls = Calls(base_url=base_url, api_key=key, timeout=timeout, rate_limiter=rate_limiter)

    async def submit(
        self, task: NewTask, *, caller: CallerKey | None = None, confirm: ConfirmSend | None = None
    ) -> SubmitOutcome:
        """Create the task, with Ringback's webhook in place of the client's, unless `confirm` returns False.

        Then the outcome is `NotMade`. Raises nothing for what PiAPI or the network does.
        """
        outcome = await self._submit(task, caller, confirm)
        _count("submit", outcome)
        return outcome

    async def fetch(
        self, provider_task_id: str, *, attempt: int | None, hidden: str = "", caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Poll one task; the update carries `attempt`. `hidden` is a secret that is redacted from the response."""
        outcome = await self._fetch(provider_task_id, attempt, hidden, caller)
        _count("fetch", outcome)
        return outcome

    async def cancel(self, provider_task_id: str, *, caller: CallerKey | None = None) -> CancelOutcome:
        """Ask PiAPI to cancel one task. PiAPI cancels only pending ones, and not those of every model."""
        outcome = await self._cancel(provider_task_id, caller)
        _count("cancel", outcome)
        return outcome

    async def history(
        self, *, model: str, since: datetime, caller: CallerKey | None = None
    ) -> list[dict[str, Any]] | None:
        """Return PiAPI's list of the tasks of `model` made since then, newest first, at most 300, without secrets.

        None if PiAPI gave no answer; if a later page failed, the pages before it.
        """
        found: list[dict[str, Any]] | None = None
        for page in range(1, MOST_PAGES + 1):
            items = await self._history_page(model, since, page, caller)
            if items is None:
                break
            found = (found or []) + [item for item in items if isinstance(item, dict)]
            if len(items) < PAGE_SIZE:
                break
        _count("history", "no_answer" if found is None else "found")
        return found if found is None else sorted(found, key=_created_at, reverse=True)

    async def account_info(self) -> tuple[int, dict[str, Any]]:
        """Return PiAPI's own status and body for `GET /account/info`, to be passed on.

        502 without an answer, or if PiAPI refuses the key. An error in the envelope of a 200 counts as that status.
        """
        if self._key_fault:
            _count("account_info", "refused")
            return 502, unauthorized(self._key_fault).body
        outcome = await self._calls.call("GET", "/account/info")
        if not isinstance(outcome, CallResponse):
            _count("account_info", "no_answer")
            return 502, envelope_of(502, outcome.message)
        _count("account_info", "found" if outcome.effective_status in (None, 200) else "refused")
        if is_unauthorized(outcome):
            return 502, unauthorized(outcome.message).body
        status = outcome.effective_status or outcome.status
        return status, outcome.body if isinstance(outcome.body, dict) else envelope_of(status, outcome.message)

    def parse_webhook(self, body: bytes, *, attempt: int | None = None) -> ProviderUpdate:
        """Turn an inbound webhook's body into an update. Raises `MalformedUpdate`."""
        return read_task(bodies.read_body(body), source=Source.WEBHOOK, attempt=attempt)

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        """Turn one item of `history` into an update (source `poll`). Raises `MalformedUpdate`."""
        try:
            body = orjson.dumps(task)
        except orjson.JSONEncodeError:
            raise MalformedUpdate("the task cannot be written as JSON") from None
        return read_task(bodies.read_body(body), source=Source.POLL, attempt=attempt)

    def redact(self, body: bytes) -> str:
        """Return an inbound body as text without the secrets that it echoes. Never raises, whatever the body is."""
        return bodies.redact(body)

    def paused_for(self) -> float:
        """Return the seconds until the end of the pause that PiAPI asked for; 0 if there is none."""
        return self._calls.rate_limiter.paused_for()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._calls.aclose()

    async def _submit(self, task: NewTask, caller: CallerKey | None, confirm: ConfirmSend | None) -> SubmitOutcome:
        if self._key_fault:
            return unauthorized(self._key_fault)
        try:
            content = orjson.dumps(_create_body(task))
        except orjson.JSONEncodeError:
            return refusal(400, "the task cannot be written as JSON")
        hidden = task.webhook_secret or ""
        outcome = await self._calls.call(
            "POST", "/api/v1/task", content=content, hidden=hidden, caller=caller, confirm=confirm
        )
        return submit_outcome(outcome)

    async def _fetch(
        self, provider_task_id: str, attempt: int | None, hidden: str, caller: CallerKey | None
    ) -> FetchOutcome:
        if self._key_fault:
            return NoAnswer(self._key_fault)
        path = _task_path(provider_task_id)
        if path is None:
            return Missing("no task at PiAPI can have this id")
        outcome = await self._calls.call("GET", path, hidden=hidden, caller=caller)
        return fetch_outcome(outcome, provider_task_id, attempt=attempt)

    async def _cancel(self, provider_task_id: str, caller: CallerKey | None) -> CancelOutcome:
        if self._key_fault:
            return unauthorized(self._key_fault)
        path = _task_path(provider_task_id)
        if path is None:
            return Missing("no task at PiAPI can have this id")
        return cancel_outcome(await self._calls.call("DELETE", path, caller=caller))

    async def _history_page(self, model: str, since: datetime, page: int, caller: CallerKey | None) -> list[Any] | None:
        if self._key_fault:
            return None
        params: dict[str, str | int] = {"page": page, "page_size": PAGE_SIZE, "model": model}
        params["start_time"] = int(since.timestamp())
        outcome = await self._calls.call("GET", "/api/open/tasks/histories", params=params, caller=caller)
        return (
            _list_in(outcome) if isinstance(outcome, CallResponse) and outcome.effective_status in (None, 200) else None
        )


def _key_fault(key: str) -> str | None:
    """Return why the key cannot be used, without repeating it; None if it can."""
    if not key:
        return "no key for PiAPI is set: set RINGBACK_PIAPI_API_KEY"
    if not (key.isascii() and key.isprintable()):
        return "RINGBACK_PIAPI_API_KEY has characters that are not allowed in an HTTP header: copy the key again"
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


def _list_in(answer: CallResponse) -> list[Any] | None:
    """Return the list: `data` itself, or under one of the names that PiAPI uses for it. An empty one may be null."""
    data = answer.body.get("data") if isinstance(answer.body, dict) else answer.body
    if isinstance(data, dict):
        data = next((data[name] for name in _LIST_NAMES if name in data), data)
    if data is None and answer.effective_status == 200:
        return []
    return data if isinstance(data, list) else None


def _created_at(task: dict[str, Any]) -> datetime:
    times = fields.read_meta(task) or task
    return fields.read_time(times.get("created_at")) or _LONG_AGO


def _count(call: str, outcome: object) -> None:
    name = outcome if isinstance(outcome, str) else _OUTCOMES[type(outcome).__name__]
    telemetry.counted(telemetry.provider_calls, PiAPI.name, call, name).inc()
