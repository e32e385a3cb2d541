"""What the tools need of the service: its HTTP API, wherever it runs."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from msgspec import Struct

from receiver.hidden_fields import HidesFields

INSTALL = "pip install 'ringback[mcp]'"
"""What to do where the package `mcp` is missing."""
READ = "read"
"""The scope of a key that may change nothing."""

ApiQuery = Sequence[tuple[str, str]]


class ApiRequest(HidesFields, Struct, frozen=True):
    """One request to the API. `path` is percent-encoded; `headers` are in addition to those of the key."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers", "body"})

    method: str
    path: str
    query: ApiQuery = ()
    body: bytes | None = None
    headers: Mapping[str, str] | None = None


class ApiAnswer(HidesFields, Struct, frozen=True):
    """One answer. The names of its headers are in lower case."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers", "body"})

    status: int
    body: bytes
    headers: Mapping[str, str]


class NotReached(Exception):
    """The service did not answer: the request may or may not have been done. The message says so in plain words."""


class ServiceApi(Protocol):
    """Sends requests to the API with one key."""

    async def send(self, request: ApiRequest) -> ApiAnswer:
        """Send a request and return the answer, whatever its status. Raises `NotReached`."""
        ...

    async def scope(self) -> str | None:
        """Return the scope of the key; None if that is not known at present."""
        ...

    @property
    def is_ending(self) -> bool:
        """Whether the process that serves the tools stops, so that nothing may wait any longer."""
        ...
