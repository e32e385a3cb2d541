"""What the server refuses before the application is asked: why, and the answer."""

from collections.abc import Iterable
from http import HTTPStatus

from msgspec import Struct

_RETRY_AFTER_SECONDS = 5


class ConnectionRefusal(Struct, frozen=True):
    """Why a connection is ended: `reason` for logs and counters, and the answer; no status means no answer."""

    reason: str
    status: HTTPStatus | None = None
    message: str = ""

    def answer(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """Return the response's bytes, with these headers added; b"" if there is none."""
        if self.status is None:
            return b""
        body = self.message.encode("ascii")
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}".encode(),
            *(b"%s: %s" % header for header in headers if header[0].lower() != b"connection"),
            b"content-type: text/plain; charset=utf-8",
            b"x-content-type-options: nosniff",
            b"cache-control: no-store",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            lines.append(b"retry-after: %d" % _RETRY_AFTER_SECONDS)
        return b"\r\n".join([*lines, b"", body])


INVALID = ConnectionRefusal("invalid request", HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")
URL_TOO_LONG = ConnectionRefusal("URL too long", HTTPStatus.REQUEST_URI_TOO_LONG, "The URL is too long.")
HEAD_TOO_LARGE = ConnectionRefusal(
    "head too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large (RINGBACK_MAX_HEAD_BYTES)."
)
TOO_MANY_FIELDS = ConnectionRefusal(
    "too many fields",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "The request has too many header fields (RINGBACK_MAX_HEAD_FIELDS).",
)
CHUNKS_TOO_LARGE = ConnectionRefusal(
    "chunk framing too large",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "The chunk extensions or trailer fields of the body are too large.",
)
NO_FIRST_BYTE = ConnectionRefusal("no first byte")
HEADERS_LATE = ConnectionRefusal(
    "headers late", HTTPStatus.REQUEST_TIMEOUT, "The headers did not arrive in time (RINGBACK_HEADERS_SECONDS)."
)
BODY_LATE = ConnectionRefusal(
    "body late", HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time (RINGBACK_BODY_SECONDS)."
)
NOT_READ = ConnectionRefusal("response not read")
BODIES_FULL = ConnectionRefusal("bodies in flight")
UNFINISHED = ConnectionRefusal(
    "too much unfinished", HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are unfinished: send it again later."
)
TOO_MANY = ConnectionRefusal(
    "too many connections", HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections: try again later."
)
TOO_MANY_OF_ADDRESS = ConnectionRefusal(
    "too many connections of one address",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Too many connections from this address: use fewer, or try again later.",
)
MADE_ROOM = ConnectionRefusal("idle, to make room")
