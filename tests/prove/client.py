"""A client of the service: it writes down each call and what came of it, and repeats one with a key."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.prove.history import History

_PATIENCE_SECONDS = 8.0
"""How long a client waits for an answer; then it goes on, or repeats a call with a key."""
_LONG_POLL_SECONDS = 26.0
_REPEAT_SECONDS = 150.0
"""How long a call with a key is repeated; long after the faults have ended."""


@dataclass(frozen=True)
class Answer:
    """What came back. `status` is None if nothing did; `sent` is False if no connection was made either."""

    status: int | None
    data: Any = None
    code: str | None = None
    sent: bool = True

    @property
    def is_final(self) -> bool:
        """Whether repeating the call could not change anything."""
        return self.status is not None and self.status < 500 and self.status != 429


class Client:
    """Sends calls to a process that it chooses at random, or to another one where no connection is made."""

    def __init__(
        self, history: History, http: httpx.AsyncClient, bases: Callable[[], list[str]], rng: random.Random
    ) -> None:
        self.history = history
        self._http = http
        self._bases = bases
        self._rng = rng

    async def once(
        self, op: str, method: str, path: str, body: Any = None, *, key: str | None = None, **noted: Any
    ) -> Answer:
        """Send a call once, and write both lines. `noted` goes into the line of the call."""
        number = self.history.call(op, key=key, **noted)
        began = time.monotonic()
        try:
            response = await self._send(method, path, body, key)
        except httpx.TransportError as error:
            sent = not isinstance(error, httpx.ConnectError)
            self.history.write("client", "no_answer", call=number, error=type(error).__name__, sent=sent)
            return Answer(None, sent=sent)
        answer = _read(response)
        self.history.write(
            "client",
            "answer",
            call=number,
            status=answer.status,
            code=answer.code,
            ids=_ids(answer.data),
            seconds=round(time.monotonic() - began, 3),
            replayed=response.headers.get("x-idempotency-replayed") == "true",
            task_status=answer.data.get("status") if isinstance(answer.data, dict) else None,
        )
        return answer

    async def repeated(self, op: str, path: str, body: Any = None, *, key: str, **noted: Any) -> Answer:
        """Send a POST with an `Idempotency-Key` until its answer is final, for a bounded time."""
        until = time.monotonic() + _REPEAT_SECONDS
        while True:
            answer = await self.once(op, "POST", path, body, key=key, **noted)
            if answer.is_final or time.monotonic() > until:
                return answer
            await asyncio.sleep(self._rng.uniform(0.1, 0.6))

    async def _send(self, method: str, path: str, body: Any, key: str | None) -> httpx.Response:
        headers = {"idempotency-key": key} if key else {}
        bases = self._bases()
        self._rng.shuffle(bases)
        refused: httpx.ConnectError | None = None
        for base in bases:
            try:
                patience = _LONG_POLL_SECONDS if "wait_for_completion" in path else _PATIENCE_SECONDS
                timeout = httpx.Timeout(patience, connect=2, pool=None)
                return await self._http.request(method, base + path, json=body, headers=headers, timeout=timeout)
            except httpx.ConnectTimeout as error:
                refused = httpx.ConnectError(str(error))
            except httpx.ConnectError as error:
                refused = error
        assert refused is not None
        raise refused


def _read(response: httpx.Response) -> Answer:
    """Read an answer in either dialect."""
    try:
        body = response.json()
    except ValueError:
        return Answer(response.status_code, None, "not_json")
    if response.status_code < 400:
        return Answer(response.status_code, body.get("data"))
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else body.get("error_code")
    return Answer(response.status_code, body.get("data"), str(code or body.get("message") or "")[:200])


def _ids(data: Any) -> list[str]:
    """Return the ids of what an answer names: a task, a run, a webhook, or each task of a bulk create."""
    if not isinstance(data, dict):
        return []
    if isinstance(data.get("data"), list):
        return [each["task_id"] for each in data["data"] if "task_id" in each]
    found = data.get("task_id") or data.get("run_id") or data.get("id")
    return [str(found)] if found else []
