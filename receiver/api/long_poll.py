"""The reply to a long poll, made and sent when the application has returned: thousands wait, each for long."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, Protocol

from msgspec import Struct
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from receiver.api.answer_headers import WithHeaders
from receiver.api.dialects import Dialect, Reply
from receiver.api.keys_in_use import Principal
from receiver.api.limits import LimitStatus
from receiver.api.request_errors import broken_off, noted
from receiver.api.services import Services
from receiver.asgi import KEY, ResponseRest, afterwards, is_answer_seen
from receiver.body_budget import BodyBudget
from receiver.events.wakeable import LEAVER
from receiver.telemetry.metrics import counted, exceptions


class Caller(Protocol):
    """What a reply that is waited for may use of its request: the rest of it may be released by then."""

    @property
    def services(self) -> Services:
        """The parts of the service."""

    @property
    def principal(self) -> Principal:
        """Whose request it is."""

    @property
    def organization_id(self) -> int:
        """The integer key of the caller's organization."""

    async def hold(self, size: int) -> None:
        """Take room for what a large answer is made of, until the server has the answer. Raises `Unavailable`."""


class Later(Struct, frozen=True):
    """A reply that may take long, because a task or run is waited for, and what makes it.

    That is rather a `partial` than a function within a function, which would hold three times as much.
    """

    reply: Callable[[Caller], Awaitable[Reply]]


class LongPoll:
    """The response to one client, as an ASGI application, for a server that goes on with it by itself.

    Of the request it holds what the reply and errors need, and the way back through the middlewares only where one has
    to see the answer: else it adds the headers of every answer itself. The wait ends when the client is gone, and if
    the request only `reads`, when its key ends.
    """

    __slots__ = (
        "_budget",
        "_dialect",
        "_is_gone",
        "_limit_status",
        "_path",
        "_reads",
        "_reply",
        "_request_id",
        "_scope",
        "_send",
        "_task",
        "_waits",
        "principal",
        "services",
    )

    def __init__(
        self,
        later: Later,
        dialect: Dialect,
        services: Services,
        principal: Principal,
        budget: BodyBudget | None,
        request_id: str,
        limit_status: LimitStatus | None,
        *,
        path: str,
        reads: bool,
    ) -> None:
        self.services = services
        self.principal = principal
        self._reply = later.reply
        self._dialect = dialect
        self._budget = budget
        self._request_id = request_id
        self._limit_status = limit_status
        self._path = path
        self._reads = reads
        self._is_gone = False
        self._waits = False

    @property
    def organization_id(self) -> int:
        """The integer key of the caller's organization."""
        return self.principal.organization_id

    async def hold(self, size: int) -> None:
        """Take room for what a large answer is made of, until the server has the answer. Raises `Unavailable`."""
        if self._budget is not None:
            await self._budget.take(self.organization_id, size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave the response to the server."""
        go_on = afterwards(scope)
        assert go_on is not None  # noqa: S101 - the endpoint has looked
        self._scope = scope
        self._send = send if is_answer_seen(scope) else None
        go_on(self._go_on)

    async def _go_on(self, rest: ResponseRest) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._task = task
        try:
            rest.when_gone(self._leave)
            LEAVER.set(self)
            try:
                response = await self._response()
            finally:
                # The next request of the connection may begin in a copy of this context, which would also hold this,
                # and so the task.
                LEAVER.set(None)
            if self._limit_status is not None:
                response.headers.update(self._limit_status.headers)
            send = self._send or WithHeaders(self._scope, self._request_id, rest.send)
            await response(self._scope, _nothing, send)
        except asyncio.CancelledError:
            if not self._is_gone:
                raise
            task.uncancel()  # no client is there to be answered
        except Exception:
            counted(exceptions, "request").inc()  # no middleware sees it here; the server logs it
            raise

    async def _response(self) -> Response:
        """Wait for the reply; return the response, or that of the error."""
        try:
            with self.services.authenticator.in_use.hold(self.principal) if self._reads else nullcontext():
                reply = await self._reply(self)
            return self._dialect.reply(reply, self._request_id)
        except asyncio.CancelledError:
            if self._is_gone or not self.services.streams.feed.closed:
                raise
            return self._dialect.error(broken_off(reads=self._reads), self._request_id)
        except Exception as error:
            return self._refusal(error)

    def _refusal(self, error: Exception) -> Response:
        key = (self.principal.key_uid, self.principal.organization_uid)
        seen = {"path": self._path, "client": self._scope["client"], KEY: key}
        return self._dialect.error(noted(error, self.services, seen), self._request_id)

    def begin_wait(self) -> None:
        """Have the task cancelled when the client is gone, and at once if it is."""
        self._waits = True
        if self._is_gone:
            self._task.cancel()

    def end_wait(self) -> None:
        """Have it go on even so: a query that is broken off may cost its connection to the database."""
        self._waits = False

    def _leave(self) -> None:
        self._is_gone = True
        if self._waits:
            self._task.cancel()


async def _nothing() -> Message:
    raise AssertionError("a response that is not a stream receives nothing")
