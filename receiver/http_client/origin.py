"""The server of a URL."""

from typing import NamedTuple


class Origin(NamedTuple):
    """A server, as connections are kept for it. `host` is a name in its IDNA form, or a literal address."""

    host: str
    port: int
