"""Closing a connection on which the client may still be sending."""

import asyncio
from collections.abc import Callable
from typing import Any

from receiver.serving.joined_head import JoinedHead


class LingeringTransport:
    """Stands before a connection's transport for a response that may be complete before the request's body is.

    To close a socket whose bytes were not all read resets the connection, and the client may lose the response (RFC
    9112, section 9.6). `linger` ends it in a way that does not, and returns False if there is nothing to wait for.
    """

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], bool]) -> None:
        self._transport = transport
        self._linger = linger
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        """Close the connection, after the rest of the request has arrived or was waited for."""
        if isinstance(self._transport, JoinedHead):  # it may keep the head of a response that broke off before its body
            self._transport = self._transport.without()
        if not self._linger():
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
