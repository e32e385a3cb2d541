"""One response after the other on a connection: its headers, and its body as it arrives; no I/O."""

import sys

from receiver.http_client.response_reader import MOST_BYTES_BESIDE_BODY, WITHOUT_BODY, ResponseReader


class StreamedReader(ResponseReader):
    """Reads responses of any length: `take` is to be called for what has arrived of a body.

    `headers` are as they came; `has_head` says that all of them are there. `expects_body` is to be set before a request
    is sent: False for HEAD. `is_whole` says, when no more is read, that the response was read to its end; `is_closed`
    that the connection ended first.
    """

    __slots__ = ("_beside_body", "expects_body", "has_head", "headers", "is_closed")

    def __init__(self) -> None:
        self.expects_body = True
        super().__init__(kept=sys.maxsize)

    def begin(self) -> None:
        """Begin to read the response to the next request."""
        super().begin()
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = self.is_closed = False
        self._beside_body = 0

    @property
    def is_whole(self) -> bool:
        """Whether the response was read to its end."""
        if self.is_complete or not (self.is_over and self.has_head):
            return self.is_complete
        if not self._has_body:
            return True
        return self.is_closed and self.error is None and self._ends_with_connection

    @property
    def was_closed_unanswered(self) -> bool:
        """Whether the connection ended, and nothing of a response had arrived."""
        return self.is_closed and not self.head.has_begun

    def take(self) -> bytes:
        """Return what has arrived of the body since the last time."""
        taken, self.body = bytes(self.body), bytearray()
        return taken

    def end(self, error: Exception | None) -> None:
        """Take note that nothing more arrives: the server has closed the connection, or it was lost."""
        self.is_closed = self.is_closed or not self.is_over
        super().end(error)

    def on_message_begin(self) -> None:
        """Take note that a response begins, perhaps read once more; only the parser calls it."""
        super().on_message_begin()
        if not self.has_head:
            self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and no trailer; only the parser calls it."""
        if not self.has_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take note of the end of the head; only the parser calls it."""
        self.has_head = True

    @property
    def _has_body(self) -> bool:
        return self.expects_body and self.status not in WITHOUT_BODY

    @property
    def _ends_with_connection(self) -> bool:
        """Whether nothing else says where the body ends."""
        headers = [(name.strip().lower(), value.lower()) for name, value in self.headers]
        return not any(
            name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value)
            for name, value in headers
        )

    def _read_head(self, lines: bytes, rest: bytes) -> None:
        super()._read_head(lines, rest if self.expects_body else b"")
        if not self.expects_body and (rest or not self.is_over):
            self._stop()

    def _feed_body(self, data: bytes) -> None:
        before = len(self.body)
        if not self._parse(data):
            self._stop()
        elif len(self.body) != before:
            self._beside_body = 0
        else:
            self._beside_body += len(data)
            if self._beside_body > MOST_BYTES_BESIDE_BODY and not self.is_complete:
                self._stop()
