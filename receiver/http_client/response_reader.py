"""One response after the other on a connection, read within bounds; no I/O.

httptools (llhttp) decides where a body ends, and whether the connection may be used again. A head that it refuses is
read once more with some allowances, for what its body says to a person; then the connection is not used again.
"""

import httptools

from receiver.http_client.head_reader import HeadReader

MOST_BYTES_BESIDE_BODY = 256 * 1024
"""That may arrive after the head without one byte of the body: extensions of chunks, trailers."""
WITHOUT_BODY = frozenset({101, 204, 304})
"""Statuses of responses that have no body, whatever their heads say."""


class ResponseReader:
    """Reads the responses on one connection. `begin` is to be called before each request, `feed` for what arrives.

    Of a body the first `kept` bytes are in `body`. `is_judged` says that the head has ended, or will not: then nothing
    that follows changes the status. `is_over` says that no more is read: the response has ended, is not HTTP, is beyond
    the bounds, or as much of its body has arrived as is kept. `is_complete` says that it was read to its end.
    """

    __slots__ = (
        "_after_head",
        "_kept",
        "_parser",
        "_spent",
        "body",
        "error",
        "head",
        "is_complete",
        "is_judged",
        "is_over",
        "is_reusable",
    )

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._parser: httptools.HttpResponseParser = _parser(self)
        self._spent = False
        self.begin()

    def begin(self) -> None:
        """Begin to read the response to the next request."""
        self.head = HeadReader()
        self.body = bytearray()
        self.error: Exception | None = None
        """Why the connection was lost, if it was not closed by the server."""
        self.is_judged = self.is_over = self.is_complete = self.is_reusable = False
        self._after_head = 0

    @property
    def status(self) -> int | None:
        """The status, as soon as its line is complete."""
        return self.head.status

    @property
    def is_http(self) -> bool:
        """Whether what has arrived is the beginning of a response within the bounds."""
        return self.head.is_http and not self.head.is_too_long

    def feed(self, data: bytes) -> None:
        """Read what has arrived."""
        head = self.head
        if self.is_over:
            self.is_reusable = False  # more than was asked for
        elif head.ended:
            self._feed_body(data)
        else:
            head.feed(data)
            if head.ended:
                self.is_judged = True
                rest, head.rest = head.rest, b""  # not held while the connection is kept
                self._read_head(head.lines, rest)
            elif head.is_too_long or not head.is_http:
                self._stop()

    def end(self, error: Exception | None) -> None:
        """Take note that nothing more arrives: the server has closed the connection, or it was lost."""
        if not self.is_over:
            self.error = error
        self._stop()

    def on_message_begin(self) -> None:
        """Take note that a response begins; only the parser calls it."""
        if self.is_complete:
            self.is_reusable = False
            self._spent = True

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body; only the parser calls it."""
        if self.is_complete:
            return  # of another response, which was not asked for
        room = self._kept - len(self.body)
        self.body += data if len(data) <= room else data[:room]

    def on_message_complete(self) -> None:
        """Take note of the end; only the parser calls it."""
        if not self.is_complete:
            self.is_complete = self.is_over = True
            self.is_reusable = not self._spent and self._parser.should_keep_alive()

    def _stop(self) -> None:
        self.is_over = True
        self.is_reusable = False
        self.is_judged = self.is_judged or self.status is not None

    def _read_head(self, lines: bytes, rest: bytes) -> None:
        if not self._parse(lines):
            self._parser = _lenient(_parser(self))
            if not self._parse(lines):
                self._stop()
                return
        if self.status in WITHOUT_BODY and not self.is_complete:
            self._stop()
        elif rest:
            self.feed(rest)

    def _feed_body(self, data: bytes) -> None:
        self._after_head += len(data)
        if not self._parse(data) or len(self.body) >= self._kept or self._after_head > MOST_BYTES_BESIDE_BODY:
            if self.is_complete and not self._spent:
                return
            self._stop()

    def _parse(self, data: bytes) -> bool:
        """Return whether these bytes are HTTP, where they were expected. A parser that refused any is spent."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._spent = True
            self.is_reusable = False
            return False
        return True


def _parser(reader: ResponseReader) -> httptools.HttpResponseParser:
    parser = httptools.HttpResponseParser(reader)
    parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
    return parser


def _lenient(parser: httptools.HttpResponseParser) -> httptools.HttpResponseParser:
    parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
    return parser
