"""The status of a response, read apart from its headers: a subscriber is judged by its status, whatever follows it.

aiohttp refuses a response as a whole for one wrong header, and its error says nothing of the status. So the protocol
here reads the status line by itself, from the bytes that it passes on to aiohttp's parser.
"""

import asyncio
import re
from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MOST_HEAD_BYTES = 256 * 1024
"""Of all heads of one response together, interim ones included. What follows is not read."""
_STATUS_LINE = re.compile(rb"[\r\n]*HTTP/[0-9](?:\.[0-9])? +([0-9]{3})(?:[ \t][^\n]*|\r)?\n")
_HEAD_END = re.compile(rb"\n\r?\n")
_HEAD_END_LENGTH = 3
_RETRY_AFTER = re.compile(rb"\nretry-after[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_SWITCHING_PROTOCOLS = 101


class HeadUnreadable(Exception):
    """Raised in place of aiohttp's own error when the head of a response has a status and yet cannot be parsed.

    `retry_after` is the value of that header, if there is one.
    """

    def __init__(self, status: int, retry_after: str | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


class ResponseHead:
    """The head of one response, from its first bytes; interim responses (1xx) are passed over.

    `status` is None until the final status line is complete.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.ended = False
        self._bytes = bytearray()
        self._searched = 0
        self._passed = 0

    @property
    def too_long(self) -> bool:
        """Whether it has more than `MOST_HEAD_BYTES` and no end."""
        return not self.ended and self._passed + len(self._bytes) > MOST_HEAD_BYTES

    @property
    def retry_after(self) -> str | None:
        """The value of the header `Retry-After`, as far as the head was read."""
        found = _RETRY_AFTER.search(self._bytes)
        return None if found is None else found[1].decode("latin-1")

    @property
    def is_interim(self) -> bool:
        """Whether the status is that of an interim response, which a final one follows."""
        return self.status is not None and 100 <= self.status < 200 and self.status != _SWITCHING_PROTOCOLS

    def feed(self, data: bytes) -> None:
        """Read on."""
        self._bytes += data
        while not self.ended:
            if self.status is None and not self._read_status():
                return
            end = _HEAD_END.search(self._bytes, self._searched)
            if end is None:
                self._searched = max(0, len(self._bytes) - _HEAD_END_LENGTH)
                return
            if self.is_interim:
                self._pass_over(end.end())
            else:
                del self._bytes[end.end() :]
                self.ended = True

    def _read_status(self) -> bool:
        line = _STATUS_LINE.match(self._bytes)
        if line is not None:
            self.status = int(line[1])
            self._searched = line.end() - 1
        return line is not None

    def _pass_over(self, end: int) -> None:
        del self._bytes[:end]
        self._passed += end
        self._searched = 0
        self.status = None


class StatusFirstHandler(ResponseHandler):
    """aiohttp's protocol of a connection, which raises `HeadUnreadable` where a broken head has a status."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head = ResponseHead()

    def set_response_params(self, **params: Any) -> None:
        """Begin to read the response to the next request on the connection."""
        self._head = ResponseHead()
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Read the head, and pass the bytes on."""
        if not self._head.ended:
            self._head.feed(data)
            if self._head.too_long:
                self.set_exception(HttpProcessingError(message="the head is too long"))
                if self.transport is not None:
                    self.transport.abort()
                return
        super().data_received(data)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Set the error that the reader of the response gets."""
        status = self._head.status
        if status is not None and not self._head.is_interim and isinstance(exc, Exception):
            exc = HeadUnreadable(status, self._head.retry_after)
        super().set_exception(exc, *cause)
