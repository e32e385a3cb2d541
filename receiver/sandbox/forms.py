"""Reads the forms (`multipart/form-data`) that clients of some providers send."""

import re
from typing import Any

import orjson
from starlette.requests import Request

_BOUNDARY = re.compile(r'multipart/form-data;.*?\bboundary="?([^\s";,]{1,70})', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*?[; ]name="([^"\r\n]*)"', re.IGNORECASE)
_FILE_NAME = re.compile(rb'content-disposition:[^\r\n]*?[; ]filename="([^"\r\n]*)"', re.IGNORECASE)


async def form_fields(request: Request) -> dict[str, Any] | None:
    """Return the fields of a form, None if the body is none. Of a file the name and size; `sandbox` is read as JSON."""
    found = _BOUNDARY.match(request.headers.get("content-type", ""))
    if found is None:
        return None
    fields: dict[str, Any] = {}
    for part in (b"\r\n" + await request.body()).split(b"\r\n--" + found[1].encode())[1:]:
        head, is_whole, value = part.partition(b"\r\n\r\n")
        name, file_name = _NAME.search(head), _FILE_NAME.search(head)
        if is_whole and name is not None:
            fields[name[1].decode("utf-8", "replace")] = (
                value.decode("utf-8", "replace") if file_name is None else _about(file_name, value)
            )
    if isinstance(fields.get("sandbox"), str):
        fields["sandbox"] = _json(fields["sandbox"])
    return fields


def _about(file_name: re.Match[bytes], content: bytes) -> dict[str, Any]:
    return {"file_name": file_name[1].decode("utf-8", "replace"), "bytes": len(content)}


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
