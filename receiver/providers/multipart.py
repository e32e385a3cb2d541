"""Bodies in the form `multipart/form-data` (RFC 7578), for providers that take files and no JSON."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from receiver.providers.api import CannotAsk, FormPart

_MOST_PARTS = 1000
_DATA_URL = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+)((?:;[a-z0-9-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE)
"""Without a media type it is taken for a text: a sentence may begin with `data:` too."""
_ENDINGS = {"jpeg": "jpg", "mpeg": "mp3", "plain": "txt", "quicktime": "mov", "svg+xml": "svg"}
_LONGEST_ENDING = 8


def parts_of(fields: Mapping[str, Any]) -> tuple[FormPart, ...]:
    """Return an object's fields as the parts of a form. Raises `CannotAsk`.

    A `data:` URL becomes a file, any other text itself; a number, a truth value and an object become their JSON. A list
    becomes a part of the same name for each item. A null is left out. Files elsewhere (`https:`) are not fetched: such
    an address is sent as the text that it is.
    """
    parts: list[FormPart] = []
    for name, value in fields.items():
        for item in value if isinstance(value, list) else (value,):
            if item is None:
                continue
            if len(parts) == _MOST_PARTS:
                raise CannotAsk(f"the input may have at most {_MOST_PARTS} fields and items of lists")
            parts.append(_part(name, item))
    return tuple(parts)


def written(parts: Sequence[FormPart], boundary: str) -> bytes:
    """Return the body of a form. `boundary` must be in none of the parts: it is random."""
    return b"".join((*_pieces(parts, boundary.encode()), b"--", boundary.encode(), b"--\r\n"))


def _pieces(parts: Sequence[FormPart], boundary: bytes) -> Iterator[bytes]:
    for part in parts:
        yield b"--" + boundary + b'\r\ncontent-disposition: form-data; name="' + _quoted(part.name) + b'"'
        if part.file_name is not None:
            yield b'; filename="' + _quoted(part.file_name) + b'"\r\ncontent-type: ' + part.content_type.encode()
        yield b"\r\n\r\n" + part.content + b"\r\n"


def _quoted(name: str) -> bytes:
    """Return a name as HTML's form data writes it: nothing in it ends the header."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode("utf-8", "replace")


def _part(name: str, value: Any) -> FormPart:
    if not isinstance(value, str):
        return FormPart(name, orjson.dumps(value))
    found = _DATA_URL.match(value)
    if found is None:
        return FormPart(name, value.encode("utf-8", "replace"))
    content_type = found[1].lower()
    content = _decoded(name, value[found.end() :]) if found[3] else unquote_to_bytes(value[found.end() :])
    return FormPart(name, content, f"{_stem(name)}.{_ending(content_type)}", content_type)


def _decoded(name: str, text: str) -> bytes:
    plain = "".join(text.split())
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise CannotAsk(f"input.{name[:100]}: the base64 of its data: URL cannot be read") from None


def _stem(name: str) -> str:
    """Return a name for a file, from that of its field: servers look at its ending alone."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII)[:50].strip("_") or "file"


def _ending(content_type: str) -> str:
    kind, _, subtype = content_type.partition("/")
    if content_type == "video/mpeg":
        return "mpg"
    plain = _ENDINGS.get(subtype, subtype.removeprefix("x-"))
    is_ending = plain.isalnum() and len(plain) <= _LONGEST_ENDING
    return plain if is_ending and (kind != "application" or plain in ("json", "pdf", "zip")) else "bin"
