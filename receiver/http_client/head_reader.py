"""The head of a response, within bounds, and its status apart from its headers."""

import re

MOST_HEAD_BYTES = 64 * 1024
"""Of all heads of one response together, interim ones included. What follows is not read."""
_BEGINNING = b"HTTP/"
_BLANKS = re.compile(rb"[\r\n]*")
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])? +([0-9]{3})(?:[ \t][^\n]*|\r)?\n")
_USUAL_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([2-9][0-9][0-9])(?: [^\r\n]*)?\r\n")
_HEAD_END = re.compile(rb"\n\r?\n")
_HEAD_END_LENGTH = 3
_RETRY_AFTER = re.compile(rb"\nretry-after[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_SWITCHING_PROTOCOLS = 101


class HeadReader:
    """Reads the head of one response, however its bytes arrive; interim responses (1xx) are passed over.

    `status` is None until the final status line is complete. When the head has `ended`, `lines` are its bytes and
    `rest` is what arrived after them. `is_http` is False as soon as what arrived cannot be a response.
    """

    __slots__ = ("_bytes", "_in_interim", "_passed", "_searched", "ended", "is_http", "rest", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.ended = False
        self.is_http = True
        self.rest = b""
        self._bytes: bytearray | bytes = b""
        self._in_interim = False
        self._searched = 0
        self._passed = 0

    @property
    def lines(self) -> bytes:
        """The final head as far as it has arrived, from its status line to its empty line."""
        return bytes(self._bytes)

    @property
    def has_begun(self) -> bool:
        """Whether anything has arrived."""
        return bool(self._bytes or self._passed)

    @property
    def is_too_long(self) -> bool:
        """Whether it has more than `MOST_HEAD_BYTES` and no end."""
        return not self.ended and self._passed + len(self._bytes) > MOST_HEAD_BYTES

    @property
    def retry_after(self) -> str | None:
        """The value of the header `Retry-After`, as far as the head was read; None before its status line."""
        if self.status is None:
            return None
        found = _RETRY_AFTER.search(self._bytes, 0, MOST_HEAD_BYTES - self._passed)
        return None if found is None else found[1].decode("latin-1")

    def feed(self, data: bytes) -> None:
        """Read on, until the head has ended."""
        if self._bytes or self._passed or not self._read_usual(data):
            self._read_any(data)

    def _read_usual(self, data: bytes) -> bool:
        """Read what nearly every server sends: a whole head at once. Return whether it is one."""
        line = _USUAL_STATUS_LINE.match(data)
        end = None if line is None else _HEAD_END.search(data, line.end() - 1)
        if line is None or end is None or end.end() > MOST_HEAD_BYTES:
            return False
        self.status = int(line[1])
        self._end(data, end.end())
        return True

    def _read_any(self, data: bytes) -> None:
        received = bytearray(self._bytes) if isinstance(self._bytes, bytes) else self._bytes
        received += data
        self._bytes = received
        if self.status is None and self.is_http:
            self._pass_over_interim(received, b"\n" in data)
        if self.status is not None:
            end = self._head_end()
            if end is not None and self._passed + end <= MOST_HEAD_BYTES:
                self._end(bytes(received), end)

    def _end(self, received: bytes, end: int) -> None:
        self._bytes, self.rest, self.ended = received[:end], received[end:], True

    def _pass_over_interim(self, received: bytearray, has_line: bool) -> None:
        begin = 0
        while self.status is None and self.is_http and self._passed + begin <= MOST_HEAD_BYTES:
            if not self._in_interim:
                begin = self._skip_blanks(begin)
                self._read_status(begin, has_line)
            if not self._in_interim:
                break
            end = self._head_end()
            if end is None:
                break
            begin = end
            self._in_interim = False
        del received[:begin]
        self._passed += begin
        self._searched = max(0, self._searched - begin)

    def _skip_blanks(self, begin: int) -> int:
        blanks = _BLANKS.match(self._bytes, begin)
        return begin if blanks is None else blanks.end()

    def _read_status(self, begin: int, has_line: bool) -> None:
        """Read the status line at `begin`. It is looked for when a line has ended: it may arrive byte by byte."""
        line = _STATUS_LINE.match(self._bytes, begin) if has_line else None
        if line is not None:
            status = int(line[1])
            self._searched = line.end() - 1
            self._in_interim = 100 <= status < 200 and status != _SWITCHING_PROTOCOLS
            if not self._in_interim:
                self.status = status
        elif not _BEGINNING.startswith(bytes(self._bytes[begin : begin + len(_BEGINNING)])) or (
            has_line and b"\n" in self._bytes[begin:]
        ):
            self.is_http = False

    def _head_end(self) -> int | None:
        """Return where the present head ends; None if that has not arrived. What was searched is passed over."""
        end = _HEAD_END.search(self._bytes, self._searched)
        if end is None:
            self._searched = max(self._searched, len(self._bytes) - _HEAD_END_LENGTH)
            return None
        return end.end()
