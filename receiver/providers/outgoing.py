"""What the calls to a provider go through, as those who make them see it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Mapping
from typing import NamedTuple, Protocol

import httpx

MOST_CONNECTIONS = 200
# Shorter than the usual server's (5 s), so that Ringback closes an idle connection first: a server that closes one just
# as a request is sent leaves it unknown whether the request was handled.
IDLE_SECONDS = 4.0

OutgoingBody = bytes | AsyncIterable[bytes] | None
"""The body of a request: in memory, as it comes, or none."""


class Timeouts(NamedTuple):
    """Seconds that a new connection may take, a silence of the provider, and the wait for a free connection."""

    connect: float
    read: float
    pool: float


class WholeBody(ABC, httpx.AsyncByteStream):
    """The body of a response that may be read at once: its parts one by one take longer than a short one is worth."""

    @abstractmethod
    async def whole(self, most: int) -> bytes:
        """Return all that has not been read yet. Raises `DecodingError` for more than `most` bytes."""


class Transport(Protocol):
    """Sends requests. httpx's errors say what went wrong, without a secret in their texts."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: OutgoingBody) -> httpx.Response:
        """Send a request; return the response when its headers have arrived. It has no decoded body, only its stream.

        Close the response when enough of it was read.
        """

    async def aclose(self) -> None:
        """Close the connections."""
