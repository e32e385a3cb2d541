"""What both the inbound endpoint and the API need from ASGI: a body of bounded size, and closing a connection."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from receiver.body_budget import BodyBudget, BodyBudgets
from receiver.errors import RingbackError, TooLarge

ABORT = "ringback.abort"
"""The ASGI extension by which the server offers to close a connection at once: `{"abort": function}`."""
BODIES = "ringback.bodies"
"""The ASGI extension with the server's `BodyBudgets`: `{"budgets": ...}`. Another server may have none."""
PEER = "ringback.peer"
"""The ASGI extension that says whether the address that the connection comes from is a trusted proxy's:
`{"is_trusted": bool}`. `scope["client"]` does not: it is what that proxy said. Another server may have none."""
AFTERWARDS = "ringback.afterwards"
"""The ASGI extension by which the server offers to go on with a response when the application has returned, and all
that the request passed has been released: `{"go_on": function}`, which takes one `Afterwards`. A middleware that has
to see the answer says so there (`see_answer`)."""
_SEEN = "is_seen"
KEY = "ringback.key"
"""The name in the scope of the ids of the API key and the organization of a request, once they are known."""

_UNCOUNTED_BYTES = 16 * 1024
"""A body up to this size takes nothing from a budget: the bound on connections bounds these."""


class ResponseRest(Protocol):
    """What is left of a response when the application has returned: all but its head, or all of it."""

    @property
    def send(self) -> Send:
        """Send a message of ASGI."""

    def when_gone(self, leave: Callable[[], None]) -> None:
        """Call `leave`, and no earlier one, when the client is gone; at once if it is."""


Afterwards = Callable[[ResponseRest], Awaitable[None]]
"""Sends what is left of a response, and completes it."""


class ClientGone(RingbackError):
    """Raised when the client closed the connection before its whole body was received. No response can be sent."""

    status = 400
    code = "client_gone"


def afterwards(scope: Scope) -> Callable[[Afterwards], None] | None:
    """Return what takes that which sends a response, or its rest, afterwards; None if the server has no such offer."""
    go_on: Callable[[Afterwards], None] | None = (scope.get("extensions") or {}).get(AFTERWARDS, {}).get("go_on")
    return go_on


def see_answer(scope: Scope) -> None:
    """Have what sends a response afterwards send it by the way that the request came, and so hold that way."""
    offer = (scope.get("extensions") or {}).get(AFTERWARDS)
    if offer is not None:
        offer[_SEEN] = True


def is_answer_seen(scope: Scope) -> bool:
    """Return whether a middleware has called `see_answer` for this request."""
    return _SEEN in (scope.get("extensions") or {}).get(AFTERWARDS, {})


def end_within(scope: Scope) -> None:
    """Take away the offer to go on afterwards: the caller is to see all of the response that is sent."""
    (scope.get("extensions") or {}).pop(AFTERWARDS, None)


async def read_body(
    scope: Scope,
    receive: Receive,
    limit: int,
    *,
    setting: str = "RINGBACK_MAX_BODY_BYTES",
    owner: Hashable = None,
    inbound: bool = False,
) -> bytes:
    """Return the request's body. `setting` is where `limit` comes from, for the error.

    A large one takes its bytes from the server's budget for inbound webhooks or that for the API, where `owner` has
    half of it at most: all of them before the first is read, where its length is known. Raises `TooLarge` as soon as it
    is known to be larger than `limit` bytes: before the first byte is read where `Content-Length` says so. Raises
    `ClientGone`, and `Unavailable` if the budget has no room for it.
    """
    taken = 0
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            taken = int(value)
            if taken > limit:
                raise TooLarge(f"the body has {taken} bytes; {setting} allows {limit}")
            if taken > _UNCOUNTED_BYTES:
                await hold_body(scope, taken, owner=owner, inbound=inbound)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that {setting} allows")
        if size > max(taken, _UNCOUNTED_BYTES):  # its length was not known
            await hold_body(scope, size - taken, owner=owner, inbound=inbound)
            taken = size
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def hold_body(scope: Scope, size: int, *, owner: Hashable = None, inbound: bool = False) -> None:
    """Take bytes from the server's budget until this request ends, waiting for room. Raises `Unavailable`."""
    budget = _budget(scope, inbound=inbound)
    if budget is not None:
        await budget.take(owner, size)


def give_back(scope: Scope, size: int, *, inbound: bool = False) -> None:
    """Give bytes back to the server's budget that this request took and did not need."""
    budget = _budget(scope, inbound=inbound)
    if budget is not None:
        budget.give_back(size)


def answer_budget(scope: Scope) -> BodyBudget | None:
    """Return the server's budget for what large answers are made of; None if the server has none."""
    budgets = _budgets(scope)
    return None if budgets is None else budgets.answers


def _budget(scope: Scope, *, inbound: bool) -> BodyBudget | None:
    budgets = _budgets(scope)
    if budgets is None:
        return None
    return budgets.inbound if inbound else budgets.api


def _budgets(scope: Scope) -> BodyBudgets | None:
    extensions: dict[str, Any] = scope.get("extensions") or {}
    budgets: BodyBudgets | None = extensions.get(BODIES, {}).get("budgets")
    return budgets
