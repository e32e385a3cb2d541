"""A response that goes on when the application has returned: what the request passed is released by then."""

import asyncio
import gc
import weakref
from typing import Any, cast

from starlette.types import Message, Receive, Scope, Send

from receiver.api.access_log import AccessLogMiddleware
from receiver.asgi import AFTERWARDS, ResponseRest, afterwards
from receiver.serving.afterwards import WithAfterwards
from receiver.serving.lean_event import LeanEvent


class Flow:
    """Counts how often reading was resumed."""

    resumed = 0

    def resume_reading(self) -> None:
        """Note it."""
        self.resumed += 1


class Cycle:
    """As much of uvicorn's cycle as is used."""

    def __init__(self) -> None:
        self.disconnected = False
        self.access_log = False
        self.body = bytearray()
        self.message_event = LeanEvent()
        self.flow = Flow()
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        """Keep a message."""
        self.sent.append(message)


class Held:
    """Something of the request."""


def scope() -> dict[str, Any]:
    headers = [(b"x-api-key", b"a key")]
    return {"type": "http", "method": "GET", "client": ("::1", 1), "headers": headers, "path": "/", "extensions": {}}


async def nothing() -> Message:
    raise AssertionError("nothing is received")


async def respond(cycle: Cycle, app: Any, given: dict[str, Any]) -> None:
    await WithAfterwards(app, cast(Any, cycle), lambda: None)(given, nothing, cycle.send)


async def test_what_the_request_held_is_gone_while_the_response_goes_on() -> None:
    held: list[weakref.ref[Held]] = []
    seen: list[Any] = []
    given, cycle = scope(), Cycle()

    async def rest_of(rest: ResponseRest) -> None:
        seen.extend((held[0](), sorted(given)))
        await rest.send({"type": "http.response.body"})

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        local = scope["state"] = Held()
        held.append(weakref.ref(local))
        go_on = afterwards(scope)
        assert go_on is not None
        go_on(rest_of)

    gc.disable()
    try:
        await respond(cycle, app, given)
    finally:
        gc.enable()
    assert seen == [None, ["client", "method", "type"]]
    assert cycle.sent == [{"type": "http.response.body"}]


async def test_the_rest_is_told_when_the_client_is_gone_and_not_of_other_changes() -> None:
    cycle = Cycle()

    async def rest_of(rest: ResponseRest) -> None:
        gone = asyncio.Event()
        rest.when_gone(gone.set)
        assert cycle.flow.resumed == 1, "the end of the connection is seen only if it is read"
        cycle.message_event.set()
        assert not gone.is_set()
        cycle.disconnected = True
        cycle.message_event.set()
        assert gone.is_set()
        late = asyncio.Event()
        rest.when_gone(late.set)
        assert late.is_set(), "a client that is gone already is told of at once"

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["extensions"][AFTERWARDS]["go_on"](rest_of)

    await respond(cycle, app, scope())
    assert cycle.message_event.when_set is None


async def test_a_body_that_arrives_meanwhile_does_not_keep_the_end_from_being_seen() -> None:
    cycle = Cycle()

    async def rest_of(rest: ResponseRest) -> None:
        rest.when_gone(lambda: None)
        cycle.body += b"x"
        cycle.message_event.set()
        assert (bytes(cycle.body), cycle.flow.resumed) == (b"", 2)

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["extensions"][AFTERWARDS]["go_on"](rest_of)

    await respond(cycle, app, scope())


async def test_a_request_with_an_access_log_ends_within_the_application() -> None:
    offers = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        offers.append(afterwards(scope))

    await respond(Cycle(), AccessLogMiddleware(app), scope() | {"query_string": b""})
    assert offers == [None]
