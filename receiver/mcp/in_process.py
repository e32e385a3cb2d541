"""The API as the tools of `/mcp` call it: the application of the same process, with the key of the client's request.

So what holds for every request holds for a tool: authentication, scopes, limits, quotas, idempotency, the access log.
"""

import asyncio
from urllib.parse import unquote, urlencode

import anyio
from starlette.types import Message, Receive

from receiver.api.endpoint import Call
from receiver.asgi import answer_budget, end_within
from receiver.mcp.service_api import ApiAnswer, ApiRequest, NotReached

_KEY_HEADERS = frozenset({b"x-api-key", b"authorization", b"user-agent", b"traceparent"})
"""The headers of the client's own request that each request of a tool has too."""


class InProcessApi:
    """Hands requests to the application that `call` came to."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def scope(self) -> str | None:
        """Return the scope of the client's key."""
        return str(self._call.principal.scope)

    @property
    def is_ending(self) -> bool:
        """Whether the service stops."""
        return self._call.services.streams.feed.closed

    async def send(self, request: ApiRequest) -> ApiAnswer:
        """Have the application answer a request. One that changes something is finished even if the client is gone."""
        with anyio.CancelScope(shield=request.method != "GET"):
            return await self._answer(request)
        raise NotReached("the request was broken off")  # never: this scope is not cancelled

    async def _answer(self, request: ApiRequest) -> ApiAnswer:
        outer = self._call.request.scope
        given = [(name, value) for name, value in outer["headers"] if name in _KEY_HEADERS]
        body = request.body or b""
        own = [(name.encode(), value.encode()) for name, value in (request.headers or {}).items()]
        scope = {
            **{name: outer[name] for name in outer if name not in ("route", "endpoint", "path_params", "router")},
            "method": request.method,
            "path": outer.get("root_path", "") + unquote(request.path),
            "raw_path": request.path.encode(),
            "query_string": urlencode(request.query).encode(),
            "headers": [*given, *own, (b"content-length", str(len(body)).encode())],
        }
        end_within(scope)  # the answer is the tool's
        answer = _Answer()
        try:
            await outer["app"](scope, _receiving(body), answer.send)
        finally:
            if (budget := answer_budget(outer)) is not None:
                budget.give_back()  # a tool that waits asks many times
        return ApiAnswer(answer.status, bytes(answer.body), answer.headers)


class _Answer:
    """Collects what the application sends."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]
            }
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


def _receiving(body: bytes) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        # The client's own connection is watched where its request is served, which cancels this one.
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive
