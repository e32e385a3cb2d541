"""The requests that a tool makes: tried again while the service restarts, and failures in plain words.

Each POST has an `Idempotency-Key`, so that what was sent twice is done once.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Any
from urllib.parse import quote

import orjson
from msgspec import Struct

from receiver.large_bodies import read_by_size
from receiver.mcp.service_api import ApiAnswer, ApiQuery, ApiRequest, NotReached, ServiceApi
from receiver.mcp.shortening import MOST_TOOL_BYTES, shortened

PATIENCE_SECONDS = 30.0
"""How long a service that has answered before may be away, or full: as a rule it is being restarted."""
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 5.0
_TEMPORARY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_LONGEST_MESSAGE = 2_000
_ADVICE = {
    HTTPStatus.UNAUTHORIZED: "check the API key (RINGBACK_API_KEY, or the header Authorization: Bearer)",
    HTTPStatus.PAYMENT_REQUIRED: "the provider account needs credit: tell the user",
    HTTPStatus.FORBIDDEN: "tell the user: another key is needed (`ringback key create --scope write`)",
    HTTPStatus.NOT_FOUND: "check the id: list_tasks, list_runs, list_deliveries, list_webhooks show those that exist",
}

OnPause = Callable[[str], Awaitable[None]]
"""Is told why a request is tried again."""


class ToolFailure(Exception):
    """What a tool was called for was not done, or it is not known. The message says what is wrong, then what to do."""

    def __init__(self, message: str, *, may_be_done: bool = False) -> None:
        super().__init__(message)
        self.may_be_done = may_be_done


class ApiData(Struct, frozen=True):
    """The `data` of an answer, cut to what a model can read, and how many bytes it had."""

    data: Any
    is_cut: bool
    size: int
    is_replayed: bool = False
    """Whether it is the answer to an earlier request with the same idempotency key."""


def new_key() -> str:
    """Return an idempotency key that no other request has."""
    return f"mcp-{secrets.token_hex(12)}"


def one(kind: str, identifier: str, action: str = "") -> str:
    """Return the path of one resource, with its id as one segment. Raises `ToolFailure` for what means another path."""
    if identifier in (".", ".."):
        raise ToolFailure(f"{identifier!r} is not an id")
    return f"/api/v1/{kind}/{quote(identifier, safe='')}{action}"


class ApiCalls:
    """Makes the requests of tools."""

    def __init__(self, api: ServiceApi) -> None:
        self.api = api
        self._has_answered = False

    async def get(
        self,
        path: str,
        query: ApiQuery = (),
        *,
        patience: float = PATIENCE_SECONDS,
        paused: OnPause | None = None,
        most: int = MOST_TOOL_BYTES,
    ) -> ApiData:
        """Return what is at a path, in at most `most` bytes. Raises `ToolFailure`."""
        return await self._read(await self._send(ApiRequest("GET", path, query), patience, paused), most)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None) -> ApiData:
        """Return the answer to a POST, which is done once however often it has to be sent. Raises `ToolFailure`."""
        headers = {"idempotency-key": key or new_key(), "content-type": "application/json"}
        request = ApiRequest("POST", path, (), orjson.dumps(body) if body is not None else b"", headers)
        return await self._read(await self._send(request, PATIENCE_SECONDS, None), MOST_TOOL_BYTES)

    async def _send(self, request: ApiRequest, patience: float, paused: OnPause | None) -> ApiAnswer:
        until = monotonic() + patience
        while True:
            answer: ApiAnswer | None = None
            try:
                answer = await self.api.send(request)
                reason = f"the service answered HTTP {answer.status}"
                self._has_answered = True
            except NotReached as error:
                reason = str(error)
            if answer is not None and answer.status not in _TEMPORARY:
                return answer
            pause = _PAUSE_SECONDS if answer is None else _pause_of(answer)
            if not self._has_answered or self.api.is_ending or monotonic() + pause > until:
                if answer is not None:
                    return answer
                raise ToolFailure(reason, may_be_done=True)
            if paused is not None:
                await paused(reason)
            await asyncio.sleep(pause)

    async def _read(self, answer: ApiAnswer, most: int) -> ApiData:
        def read() -> ApiData:
            body = _json_or_none(answer.body)
            if not 200 <= answer.status < 300 or not isinstance(body, dict) or "data" not in body:
                raise _failure(answer, body)
            size = len(answer.body)
            data, is_cut = shortened(body["data"], size, most)
            return ApiData(data, is_cut, size, "x-idempotency-replayed" in answer.headers)

        return await read_by_size(len(answer.body), read)


def _pause_of(answer: ApiAnswer) -> float:
    after = answer.headers.get("retry-after", "")
    return min(float(after), _LONGEST_PAUSE_SECONDS) if after.isdecimal() else _PAUSE_SECONDS


def _json_or_none(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _failure(answer: ApiAnswer, body: Any) -> ToolFailure:
    """Return the failure that an answer stands for, in one of the API's forms."""
    if 200 <= answer.status < 300:
        return ToolFailure("what answers is not Ringback; check RINGBACK_URL")
    error = body.get("error") if isinstance(body, dict) else None
    detail = error if isinstance(error, dict) else body if isinstance(body, dict) else {}
    message = str(detail.get("message") or f"HTTP {answer.status}")[:_LONGEST_MESSAGE].rstrip(". ")
    if isinstance(issues := detail.get("issues"), list):
        message = "; ".join(f"{issue.get('param')}: {issue.get('message')}" for issue in issues)[:_LONGEST_MESSAGE]
    if advice := _advice(answer):
        message = f"{message}. What to do: {advice}"
    code = detail.get("code")
    return ToolFailure(
        f"{message} (HTTP {answer.status}{f', {code}' if isinstance(code, str) else ''})",
        may_be_done=answer.status in _TEMPORARY,
    )


def _advice(answer: ApiAnswer) -> str | None:
    if advice := _ADVICE.get(HTTPStatus(answer.status)) if answer.status in set(HTTPStatus) else None:
        return advice
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        after = answer.headers.get("retry-after", "")
        return f"try again in {after} s" if after else "try again later"
    return None
