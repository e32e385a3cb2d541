"""How far the bytes of one connection may be parsed: never past the end of a request, never past the bounds."""

import re
from collections.abc import Iterable

_END = b"\r\n\r\n"
"""Ends a head, and a body in chunks (RFC 9112, sections 2.1 and 7.1)."""
_BLANKS = re.compile(rb"[\r\n]*")
_MOST_STRAY = 64
"""Bytes of blank lines after a request that begin no other: some clients send one after a body."""
_MOST_PART = 16 * 1024
"""Of a body in chunks, so that a part of chunks of one byte each does not take long."""
_PAYLOAD_SHARE = 16
"""Bytes of framing that may stand before a byte of a body: a chunk of one byte takes six (RFC 9112, section 7.1)."""


class RequestBounds:
    """Divides what arrives into parts that the parser may have, and counts what is not body, in bytes.

    The parser cannot be stopped within a part. So no part passes the end of a head, or of a body: two requests are
    never in one part. `limit` bounds a request's head, blank lines before it included; and, in a body in chunks, what
    is not payload: chunk sizes, extensions and trailer fields.
    """

    __slots__ = ("_is_blank", "_left", "_limit", "_tail", "counted")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.counted = 0
        """Bytes of the head so far, or of what is not payload in the body beyond what its payload allows."""
        self._left: int | None = None
        """Bytes of the body that are missing; None where its length is not known, or in a head."""
        self._tail = b""
        """The last bytes of the part before, in which the end may have begun."""
        self._is_blank = True
        """Whether nothing but blank lines has arrived of the head, as may stand before one."""

    def next_request(self) -> None:
        """Begin with another request."""
        self.counted, self._left, self._tail, self._is_blank = 0, None, b"", True

    def body_follows(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin with the body of the request with these headers, whose names are in lower case.

        Raises `ValueError` for a length of thousands of digits, which may all be zeros to the parser.
        """
        self.next_request()
        self._is_blank = False
        for name, value in headers:
            if name == b"transfer-encoding":
                self._left = None
                return
            if name == b"content-length" and value.isdigit():
                self._left = int(value)

    def is_stray(self, data: bytes, begin: int) -> bool:
        """Whether nothing but a few blank lines has arrived since the last request, `data` from `begin` on included."""
        size = len(data) - begin
        return self.counted + size <= _MOST_STRAY and _blanks_end(data, begin, len(data)) == len(data)

    def next_part(self, data: bytes, begin: int = 0) -> bytes:
        """Return what may be parsed now of `data`, from `begin` on; b"" if the bound is reached."""
        if self._left is not None:
            part = data[begin : begin + self._left]
            self._left -= len(part)
            return part
        most = begin + min(self._limit - self.counted, _MOST_PART)
        part = data[begin : self._end(data, begin, min(most, len(data)))]
        self.counted += len(part)
        self._tail = (self._tail + part[-3:])[-3:]
        return part

    def payload(self, size: int) -> None:
        """Count `size` bytes of a body's payload that the part before had."""
        self.counted = max(0, self.counted - _PAYLOAD_SHARE * size)

    def _end(self, data: bytes, begin: int, most: int) -> int:
        """Return the index after the first end of a head or body in `data`, between `begin` and `most`; else `most`."""
        if self._is_blank:
            self._tail = b""
            begin = _blanks_end(data, begin, most)
            if begin == most:
                return most
            self._is_blank = False
        if self._tail:
            across = (self._tail + data[begin : begin + 3]).find(_END)
            if across >= 0:
                return min(begin + across + len(_END) - len(self._tail), most)
        at = data.find(_END, begin, most)
        return most if at < 0 else at + len(_END)


def _blanks_end(data: bytes, begin: int, most: int) -> int:
    blanks = _BLANKS.match(data, begin, most)
    return begin if blanks is None else blanks.end()
