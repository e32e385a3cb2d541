"""Reads the forms that browsers send: their fields by name, of several with one name the last.

A form with a large text is sent as `multipart/form-data`: there its bytes stand as they are. URL-encoded it would have
up to three times as many, and take seconds to decode.
"""

import re
from urllib.parse import parse_qsl

from starlette.requests import Request

from receiver.asgi import read_body
from receiver.large_bodies import read_by_size

MOST_BYTES = 256 * 1024
MOST_MULTIPART_BYTES = 10 * 1024 * 1024
"""A run that is created from JSON may have 8 MiB, and browsers send each line break as two bytes."""
_MOST_FIELDS = 1000
_BOUNDARY = re.compile(r'multipart/form-data;.*?\bboundary="?([^\s";,]{1,70})', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*?[; ]name="([^"\r\n]*)"', re.IGNORECASE)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises `TooLarge`, `ClientGone`, `Unavailable`."""
    found = _BOUNDARY.match(request.headers.get("content-type", ""))
    most = MOST_BYTES if found is None else MOST_MULTIPART_BYTES
    body = await read_body(request.scope, request.receive, most, setting="the dashboard")
    if found is not None:
        boundary = found[1].encode()
        return await read_by_size(len(body), lambda: multipart_fields(body, boundary))
    return await read_by_size(len(body), lambda: _encoded_fields(body))


def multipart_fields(body: bytes, boundary: bytes) -> dict[str, str]:
    """Return the fields of a form that was sent as `multipart/form-data`; what is no field is left out."""
    fields: dict[str, str] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary, _MOST_FIELDS)[1:]:
        head, is_whole, value = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if is_whole and name is not None:
            fields[name[1].decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return fields


def _encoded_fields(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
