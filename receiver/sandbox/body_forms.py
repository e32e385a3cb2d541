"""JSON as providers write it: mostly plain, and in the forms that strict readers refuse. Pure."""

import gzip
import json
import math
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct, field

from receiver.sandbox.script import BodyForm

_LATIN_E = "\udce9"
"""Stands for the byte E9 until the text is encoded."""
_NOTES: Mapping[BodyForm, Any] = {"nan": math.nan, "surrogate": "cut \ud83d", "bad_byte": f"caf{_LATIN_E}"}


class WrittenBody(Struct, frozen=True):
    """A body, and the headers that say how it is written."""

    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


def noted(data: dict[str, Any], form: BodyForm) -> dict[str, Any]:
    """Return a task's data, with a `note` if the form is a matter of a value."""
    return {**data, "note": _NOTES[form]} if form in _NOTES else data


def write(body: Any, form: BodyForm = "plain") -> WrittenBody:
    """Return a body in the given form. The notes of `noted` are written whatever the form is."""
    content = _encode(body)
    match form:
        case "bom":
            return WrittenBody(BOM_UTF8 + content)
        case "utf16":
            return WrittenBody(content.decode().encode("utf-16"), {"content-type": "application/json; charset=utf-16"})
        case "gzip":
            return WrittenBody(gzip.compress(content), {"content-encoding": "gzip"})
        case _:
            return WrittenBody(content)


def _encode(body: Any) -> bytes:
    if not _has_note(body):
        return orjson.dumps(body)
    # orjson writes neither NaN nor a lone surrogate.
    return json.dumps(body).encode("ascii").replace(b"\\udce9", b"\xe9")


def _has_note(body: Any) -> bool:
    data = body.get("data") if isinstance(body, dict) else None
    items = data.get("data") if isinstance(data, dict) and isinstance(data.get("data"), list) else [data]
    return any(isinstance(item, dict) and "note" in item for item in items or ())
