"""What looks names up, for those who connect."""

import socket
from typing import Protocol, TypedDict


class ResolvedName(TypedDict):
    """One address of a name: `host` is the address, `hostname` the name."""

    hostname: str
    host: str
    port: int
    family: int
    proto: int
    flags: int


class NameResolver(Protocol):
    """Looks names up."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolvedName]:
        """Return the addresses of a name, in the order in which to try them. Raises OSError."""

    async def close(self) -> None:
        """Close what it uses."""
