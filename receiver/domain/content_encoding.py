"""Unpacks bodies that were sent with a `Content-Encoding`, never to more than a given size.

Source of the names and of their order: `receiver/providers/piapi/CONTRACT.md`, "Webhook".
"""

import re
import zlib
from collections.abc import Sequence

from receiver.errors import RingbackError, TooLarge

ACCEPTED = "gzip, deflate"
"""The encodings that are understood, as `Accept-Encoding` names them."""
MOST_ENCODINGS = 3
"""A body that was packed more often has no honest reason."""

_GZIP = frozenset({"gzip", "x-gzip"})
_DEFLATE = "deflate"
_NONE = frozenset({"", "identity", "none", "utf-8", "utf8"})
"""No encoding. The last three are no encodings at all, but senders that mean the characters write them here."""
_GZIP_BEGINNING = b"\x1f\x8b"
_JSON_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf|\xfe\xff|\xff\xfe)?[\s\x00]*+[{\[][\s\x00]*+[\"{}\[\]]")
"""An object or array, also in UTF-16 and UTF-32. No gzip or zlib header matches."""
_GZIP_WINDOW, _ZLIB_WINDOW, _RAW_WINDOW = 31, 15, -15
"""What zlib's `wbits` expects around the data: a gzip header, a zlib header, nothing."""
_MOST_MEMBERS = 64
"""Of a gzip body, which may be several ones after each other."""
_PIECE = 4096
"""Bytes that are unpacked at a time: as much as what precedes a fault is kept in `EncodingBroken`."""


class EncodingUnknown(RingbackError):
    """Raised for a `Content-Encoding` that is not understood. The sender has to use one of `ACCEPTED`, or none."""

    status = 415
    code = "content_encoding_unknown"
    kind = "invalid_request_error"


class EncodingBroken(RingbackError):
    """Raised when a body is not in the encoding that its header names. `unpacked` is what came before the fault."""

    status = 400
    code = "content_encoding_broken"
    kind = "invalid_request_error"

    def __init__(self, message: str, unpacked: bytes) -> None:
        super().__init__(message)
        self.unpacked = unpacked


def content_encodings(header: str, most: int = MOST_ENCODINGS) -> tuple[str, ...]:
    """Return the encodings that a `Content-Encoding` header names, in the order in which they were applied.

    They are in lower case, without `identity`. Raises `EncodingUnknown`, also for more than `most`.
    """
    names = tuple(name for part in header.split(",") if (name := part.strip().lower()) not in _NONE)
    for name in names:
        if name not in _GZIP and name != _DEFLATE:
            raise EncodingUnknown(f"the content encoding {name[:40]!r} is not understood; use gzip, deflate or none")
    if len(names) > most:
        raise EncodingUnknown(f"the body has {len(names)} content encodings; use at most {most}")
    return names


def is_packed(body: bytes, encodings: Sequence[str]) -> bool:
    """Return whether `unpack` may return another body than this one."""
    return body.startswith(_GZIP_BEGINNING) if not encodings else _JSON_BEGINNING.match(body) is None


def unpack(body: bytes, encodings: Sequence[str], limit: int) -> bytes:
    """Return `body` without its `encodings` (of `content_encodings`): what is unpacked has at most `limit` bytes.

    Some proxies unpack a body and leave the header, others remove the header of a body that is packed: JSON is returned
    as it is, and gzip is unpacked though no encoding is named.
    Takes about that much memory, whatever the body would unpack to. Raises `TooLarge` and `EncodingBroken`.
    """
    if not encodings and body.startswith(_GZIP_BEGINNING):
        encodings = ("gzip",)
    for name in reversed(encodings):
        if _JSON_BEGINNING.match(body):
            break
        body = _unpack_gzip(body, limit) if name in _GZIP else _unpack_one(body, _deflate_window(body), limit, name)[0]
    return body


def _unpack_gzip(body: bytes, limit: int) -> bytes:
    unpacked = b""
    for _ in range(_MOST_MEMBERS):
        try:
            more, body = _unpack_one(body, _GZIP_WINDOW, limit - len(unpacked), "gzip")
        except EncodingBroken as error:
            raise EncodingBroken(error.message, unpacked + error.unpacked) from None
        unpacked += more
        # What follows and is no other member is padding, which gzip itself ignores too.
        if not body.startswith(_GZIP_BEGINNING):
            return unpacked
    raise EncodingBroken(f"the gzip body has more than {_MOST_MEMBERS} members", unpacked)


def _unpack_one(body: bytes, window: int, limit: int, name: str) -> tuple[bytes, bytes]:
    """Return what `body` begins with, unpacked, and the bytes that follow it."""
    if not body:
        return b"", b""
    unpacker = zlib.decompressobj(window)
    unpacked = bytearray()
    position = 0
    while not unpacker.eof:
        piece = body[position : position + _PIECE]
        if not piece:
            raise EncodingBroken(f"the {name} body is cut off", bytes(unpacked))
        try:
            unpacked += unpacker.decompress(piece, limit - len(unpacked) + 1)
        except zlib.error:
            raise EncodingBroken(f"the body is not in the content encoding {name}", bytes(unpacked)) from None
        if len(unpacked) > limit:
            raise TooLarge(f"the unpacked body has more than {limit} bytes; send less")
        position += len(piece)
    return bytes(unpacked), unpacker.unused_data + body[position:]


def _deflate_window(body: bytes) -> int:
    """Return the window of a deflate body: RFC 9110 wants a zlib header, and many senders leave it out.

    RFC 1950: the header names method 8, and is a multiple of 31.
    """
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    return _ZLIB_WINDOW if has_header else _RAW_WINDOW
