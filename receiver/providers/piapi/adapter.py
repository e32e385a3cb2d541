"""PiAPI behind the provider protocol. Contract: contracts/piapi.md."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from receiver import telemetry
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers.base import (
    Begin,
    CallerKey,
    CancelOutcome,
    FetchOutcome,
    MalformedUpdate,
    Missing,
    NewTask,
    NoAnswer,
    SubmitOutcome,
)
from receiver.providers.piapi import bodies, fields
from receiver.providers.piapi.calls import CallResponse, Calls
from receiver.providers.piapi.outcomes import body_in_form, judge_cancel, judge_fetch, judge_submit, refuse
from receiver.providers.piapi.tasks import read_task
from receiver.providers.rate_limiter import RateLimiter

PAGE_SIZE = 100
"""The most that the list gives at once; more is an error. Contract: "Lists and account"."""
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
"""The names of the outcomes in the metric."""


class PiAPI:
    """PiAPI's unified task API. Owns its connections: call `aclose` when done.

    `timeout` (seconds) bounds each phase of a call. A call waits at most `timeout` for the budget, and then takes
    at most 5 + 3 × `timeout` altogether.
    """

    name = "piapi"

    def __init__(self, *, base_url: str, api_key: str | None, timeout: float, rate_limiter: RateLimiter) -> None:
        key = (api_key or "").strip()
        self._key_fault = _key_fault(key)
        self._calls = Calls(base_url=base_url, api_key=key, timeout=timeout, rate_limiter=rate_limiter)

    async def submit(
        self, task: NewTask, *, caller: CallerKey | None = None, begin: Begin | None = None
    ) -> SubmitOutcome:
        """Create the task, with our webhook in place of the client's, unless `begin` says no: then `NotMade`.

        Never raises for what goes wrong there.
        """
        outcome = await self._submit(task, caller, begin)
        _count("submit", outcome)
        return outcome

    async def fetch(
        self, provider_task_id: str, *, attempt: int | None, hidden: str = "", caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Look at one task; the update carries `attempt`. `hidden` is blanked wherever the answer echoes it."""
        outcome = await self._fetch(provider_task_id, attempt, hidden, caller)
        _count("fetch", outcome)
        return outcome

    async def cancel(self, provider_task_id: str, *, caller: CallerKey | None = None) -> CancelOutcome:
        """Ask PiAPI to cancel one task. It can cancel only pending ones, and not of every model."""
        outcome = await self._cancel(provider_task_id, caller)
        _count("cancel", outcome)
        return outcome

    async def history(
        self, *, model: str, since: datetime, caller: CallerKey | None = None
    ) -> list[dict[str, Any]] | None:
        """Return PiAPI's list of tasks of `model` made since then, newest first, at most 300, without secrets.

        None if there was no answer; if only a later page failed, what there was so far.
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
        """Return PiAPI's own status and body for `GET /account/info`, for passing on; 401 or 502 without them.

        An error in the envelope of a 200 counts as that status.
        """
        if self._key_fault:
            _count("account_info", "refused")
            return 401, body_in_form(401, self._key_fault)
        outcome = await self._calls.call("GET", "/account/info")
        if not isinstance(outcome, CallResponse):
            _count("account_info", "no_answer")
            return 502, body_in_form(502, outcome.message)
        _count("account_info", "found" if outcome.effective_status in (None, 200) else "refused")
        status = outcome.effective_status or outcome.status
        return status, outcome.body if isinstance(outcome.body, dict) else body_in_form(status, outcome.message)

    def parse_webhook(self, body: bytes, *, attempt: int | None = None) -> ProviderUpdate:
        """Turn an inbound webhook's body into an update. Raises `MalformedUpdate`."""
        return read_task(bodies.read_body(body), source=Source.WEBHOOK, attempt=attempt)

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        """Turn one item of `history` into an update (source `poll`). Raises `MalformedUpdate`."""
        try:
            body = orjson.dumps(task)
        except orjson.JSONEncodeError:
            raise MalformedUpdate("the task cannot be JSON") from None
        return read_task(bodies.read_body(body), source=Source.POLL, attempt=attempt)

    def redact(self, body: bytes) -> str:
        """Return an inbound body as text without the secrets that it echoes, whatever is wrong with it."""
        return bodies.redact(body)

    def paused_for(self) -> float:
        """Return for how many seconds more PiAPI asked to be left alone; 0 if it did not."""
        return self._calls.rate_limiter.paused_for()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._calls.aclose()

    async def _submit(self, task: NewTask, caller: CallerKey | None, begin: Begin | None) -> SubmitOutcome:
        if self._key_fault:
            return refuse(401, self._key_fault)
        try:
            content = orjson.dumps(_create_body(task))
        except orjson.JSONEncodeError:
            return refuse(400, "the task cannot be written as JSON")
        hidden = task.webhook_secret or ""
        outcome = await self._calls.call(
            "POST", "/api/v1/task", content=content, hidden=hidden, caller=caller, begin=begin
        )
        return judge_submit(outcome)

    async def _fetch(
        self, provider_task_id: str, attempt: int | None, hidden: str, caller: CallerKey | None
    ) -> FetchOutcome:
        if self._key_fault:
            return NoAnswer(self._key_fault)
        path = _task_path(provider_task_id)
        if path is None:
            return Missing("no task can have this id")
        outcome = await self._calls.call("GET", path, hidden=hidden, caller=caller)
        return judge_fetch(outcome, provider_task_id, attempt=attempt)

    async def _cancel(self, provider_task_id: str, caller: CallerKey | None) -> CancelOutcome:
        if self._key_fault:
            return refuse(401, self._key_fault)
        path = _task_path(provider_task_id)
        if path is None:
            return Missing("no task can have this id")
        return judge_cancel(await self._calls.call("DELETE", path, caller=caller))

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
    """Say why the key cannot be used. Never repeats it."""
    if not key:
        return "there is no key for PiAPI: set RINGBACK_PIAPI_API_KEY"
    if not (key.isascii() and key.isprintable()):
        return "RINGBACK_PIAPI_API_KEY holds characters that no header can carry"
    return None


def _create_body(task: NewTask) -> dict[str, Any]:
    config = {name: value for name, value in (task.config or {}).items() if name != "webhook_config"}
    if task.webhook_url is not None:
        config["webhook_config"] = {"endpoint": task.webhook_url, "secret": task.webhook_secret or ""}
    body = {"model": task.model, "task_type": task.task_type, "input": task.input}
    return {**body, "config": config} if config else body


def _task_path(task_id: str) -> str | None:
    # Dots alone would be resolved into another address, DELETE included.
    return f"/api/v1/task/{quote(task_id, safe='', errors='replace')}" if task_id.strip(".") else None


def _list_in(answer: CallResponse) -> list[Any] | None:
    """Find the list: `data` itself, or one of the names that are in use for it. An empty one may be null."""
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
