"""JSON documents that others sent, as a page shows them: bounded, coloured, with links to http and https alone."""

import json
import re
from typing import Any

import orjson
from markupsafe import Markup, escape
from msgspec import Struct

from receiver.domain.output_files import is_url
from receiver.printable import printable, printable_json

MOST_CHARACTERS = 64 * 1024
"""Of one document on a page; all of it is in a file of its own."""
_LONGEST_TEXT = 2_000
_MOST_ITEMS = 200
_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")(?P<colon>\s*:)?|(?P<number>-?\d[\d.eE+-]*)|(?P<word>true|false|null)')


class Shown(Struct, frozen=True):
    """A document as a page shows it. `is_cut`: the page has a part of it only; `size` is that of all, in bytes."""

    markup: Markup
    size: int
    is_cut: bool


def document(value: Any, *, is_plain: bool = False) -> Shown:
    """Return a document as a page shows it, which may be large; one that is returned already stays as it is.

    `is_plain`: without colours and links, which take ten times as long: for a page of many documents.
    """
    if isinstance(value, Shown):
        return value
    size = len(orjson.dumps(value))
    shortened = _shortened(value) if size > _LONGEST_TEXT else value
    text = orjson.dumps(shortened, option=orjson.OPT_INDENT_2).decode()
    is_cut = len(text) > MOST_CHARACTERS or (size > _LONGEST_TEXT and shortened != value)
    shown = printable_json(text[:MOST_CHARACTERS])
    return Shown(escape(shown) if is_plain else coloured(shown), size, is_cut)


def text_document(text: str) -> Shown:
    """Return a text as a page shows it: as JSON if it is some, with every digit of its numbers, else as it is."""
    try:
        value = json.loads(text, parse_float=orjson.Fragment, parse_int=orjson.Fragment, parse_constant=_refuse)
        return document(value)
    except (ValueError, TypeError, RecursionError):  # the second is orjson's, of what it cannot write
        size = len(text.encode("utf-8", "replace"))
        shown = escape(printable(text[:MOST_CHARACTERS], lines=True))
        return Shown(shown, size, len(text) > MOST_CHARACTERS)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def size_text(size: int) -> str:
    """Return a number of bytes in words."""
    if size < 1000:
        return f"{size} bytes"
    if size < 1_000_000:
        return f"{size / 1000:.1f} kB"
    return f"{size / 1_000_000:.1f} MB" if size < 1_000_000_000 else f"{size / 1_000_000_000:,.1f} GB"


def _shortened(value: Any) -> Any:
    """Return a value whose long texts and lists end early. Documents of the API are nested 100 levels deep at most."""
    if isinstance(value, str):
        if len(value) <= _LONGEST_TEXT or is_url(value):
            return value
        return f"{value[:_LONGEST_TEXT]}… ({len(value):,} characters)"
    if isinstance(value, list):
        items = [_shortened(item) for item in value[:_MOST_ITEMS]]
        return items if len(value) <= _MOST_ITEMS else [*items, f"… ({len(value):,} items)"]
    if isinstance(value, dict):
        names = list(value)
        fields = {name[:_LONGEST_TEXT]: _shortened(value[name]) for name in names[:_MOST_ITEMS]}
        return fields if len(names) <= _MOST_ITEMS else {**fields, "…": f"({len(names):,} fields)"}
    return value


def coloured(text: str, *, links: bool = True) -> Markup:
    """Return JSON with its tokens marked for the style sheet. Everything is escaped part by part."""
    parts: list[Markup] = []
    end = 0
    for found in _TOKEN.finditer(text):
        parts.append(escape(text[end : found.start()]))
        parts.append(_token(found, links=links))
        end = found.end()
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


def _token(found: re.Match[str], *, links: bool) -> Markup:
    if found["text"] is None:
        kind = "json-number" if found["number"] is not None else "json-word"
        return Markup('<span class="{}">{}</span>').format(kind, found[0])
    if found["colon"] is not None:
        return Markup('<span class="json-name">{}</span>{}').format(found["text"], found["colon"])
    try:
        value = orjson.loads(found["text"])
    except orjson.JSONDecodeError:
        value = ""
    if links and is_url(value) and value.isprintable():
        return Markup(
            '<a class="json-text" href="{}" target="_blank" rel="noreferrer noopener nofollow">{}</a>'
        ).format(value.strip(), found["text"])
    return Markup('<span class="json-text">{}</span>').format(found["text"])
