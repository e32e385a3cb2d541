"""What is passed on to a provider as a client sent it, and what comes back."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from msgspec import Struct

from receiver.hidden_fields import HidesFields


class ForwardedRequest(HidesFields, Struct, frozen=True, kw_only=True):
    """A client's request to be passed on. It has none of the client's credentials.

    `path` and `query` (without its `?`) are as the client sent them; `headers` describe the body and the answer that is
    wanted. `body` yields the body as it arrives, and is None for a request without one; what it raises ends the call.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers"})

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: AsyncIterable[bytes] | None


class ForwardedAnswer(HidesFields, Struct, frozen=True, kw_only=True):
    """The provider's answer to a forwarded request, when its headers have arrived.

    `headers` are those that concern the client, in lower case. `body` yields the body as it arrives, without Ringback's
    key; it raises `AnswerCut`. `aclose` ends the call, whether the body was read or not.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers"})

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]
    aclose: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class NotForwarded:
    """There is no answer to be passed on. `status` (502, 503 or 504) and `code` are for the client.

    `retry_after` is in seconds, where the same request may succeed then.
    """

    status: int
    code: str
    message: str
    retry_after: float | None = None
    seen: str = field(default="", compare=False)


ForwardOutcome = ForwardedAnswer | NotForwarded


class AnswerCut(Exception):
    """The body of an answer that ends too early, pauses too long or is too large. The message says which."""
