"""Finds the files of an output: every URL in it that is a file, at any depth, with its kind. Pure.

The order is fixed: first the results that stand in the fields of `OUTPUT_FIELDS`, in the order of that table; then
other results as they appear; then what comes with a result (covers, thumbnails, frames, repeated inputs), the table's
first. Each URL is listed once. The work is bounded, whatever the output is, and nothing here is recursive or raises.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from receiver.domain.output_fields import (
    AUDIO,
    CONTENT_TYPE_NAMES,
    IMAGE,
    KIND_BY_ENDING,
    LONGEST_NAME,
    MODEL,
    OTHER,
    OUTPUT_FIELDS,
    TEXT,
    URL_NAMES,
    VIDEO,
    NameMeaning,
    OutputField,
    meaning_of,
)

MOST_FILES = 1000
MOST_VALUES = 5000
"""How many objects, lists and URLs of an output are looked at."""
LONGEST_URL = 8192
_LONGEST_PATH = 300
_LONGEST_CONTENT_TYPE = 100
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"https?://[^\s/?#][^\s]*", re.IGNORECASE)
_ENDING = re.compile(r"\.([A-Za-z0-9]{1,12})$")
_PAGE_ENDINGS = frozenset({"html", "htm", "php", "aspx"})
_MODEL_TYPES = ("model/", "gltf")
_STEPS = {field.path: tuple(re.findall(r"\[\]|\{\}|\w+", field.path)) for field in OUTPUT_FIELDS}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of an output. `name` is the path of its field, as in an input map: `works[0].cover.resource`.

    `content_type` is the text beside the URL that names its type, None if there is none. `is_result` is false for what
    comes with a result, such as a cover.
    """

    url: str
    kind: str
    name: str
    content_type: str | None
    is_result: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as `output_files` has it."""
        shown = {"url": self.url, "kind": self.kind, "name": self.name}
        return shown if self.content_type is None else {**shown, "content_type": self.content_type}


def find_files(output: dict[str, Any]) -> list[OutputFile]:
    """Return the files of an output, at most 1,000, in the order that the module's docstring gives."""
    known: dict[str, OutputFile] = {}
    for field in OUTPUT_FIELDS:
        for file in _files_of(output, field):
            if len(known) < MOST_FILES:
                known.setdefault(file.url, file)
    other: dict[str, OutputFile] = {}
    for file in _files_by_name(output):
        if file.url not in known and len(known) + len(other) < MOST_FILES:
            other.setdefault(file.url, file)
    found = [*known.values(), *other.values()]
    return [file for file in found if file.is_result] + [file for file in found if not file.is_result]


def is_url(value: Any) -> bool:
    """Return whether a value is an http or https URL. Base64, `data:` URLs, and texts that begin with one are not."""
    # Some models return the image itself, in base64, in the field where others return its URL.
    return isinstance(value, str) and len(value) <= LONGEST_URL and _URL.fullmatch(value.strip()) is not None


def _files_of(output: dict[str, Any], field: OutputField) -> Iterator[OutputFile]:
    """Yield the files in one field of the table."""
    for path, value, beside in _values_at(output, _STEPS[field.path]):
        for name, url, content_type in _urls_in(path, value, beside):
            kind = field.kind or _kind_of(url, meaning_of(""), content_type) or OTHER
            yield OutputFile(url, kind, name, content_type if _fits(content_type, kind) else None, field.is_result)


def _values_at(output: dict[str, Any], steps: tuple[str, ...]) -> list[tuple[str, Any, str | None]]:
    """Return (path, value, content type beside it) of what `steps` lead to; at most 1,000."""
    level: list[tuple[str, Any, str | None]] = [("", output, None)]
    for step in steps:
        below: list[tuple[str, Any, str | None]] = []
        for path, value, content_type in level:
            if step in ("[]", "{}"):
                below += [(each_path, item, content_type) for each_path, item in _items(path, value, step == "{}")]
            elif isinstance(value, dict) and value.get(step):
                below.append((_joined(path, step), value[step], _content_type_in(value) or content_type))
        level = below[:MOST_FILES]
    return level


def _items(path: str, value: Any, also_of_objects: bool) -> list[tuple[str, Any]]:
    if isinstance(value, list):
        return [(_joined(path, index), item) for index, item in enumerate(value[:MOST_FILES])]
    if also_of_objects and isinstance(value, dict):
        return [(_joined(path, name), value[name]) for name in list(value)[:MOST_FILES]]
    return []


def _urls_in(path: str, value: Any, content_type: str | None) -> Iterator[tuple[str, str, str | None]]:
    """Yield (path, URL, content type) of a URL, an object with one, or the items of a list of these."""
    for each_path, item in _items(path, value, False) if isinstance(value, list) else [(path, value)]:
        if isinstance(item, dict):
            name = next((name for name in URL_NAMES if is_url(item.get(name))), None)
            if name is not None:
                yield _joined(each_path, name), item[name].strip(), _content_type_in(item) or content_type
        elif is_url(item):
            yield each_path, item.strip(), content_type


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value is: its path, what the names on the way tell, and the content type of the nearest object."""

    path: str
    meaning: NameMeaning
    content_type: str | None


def _files_by_name(output: dict[str, Any]) -> Iterator[OutputFile]:
    """Yield the files that their field's name, their ending or a content type shows, in order of appearance."""
    waiting: list[tuple[_Place, Any]] = [(_Place("", meaning_of(""), None), output)]
    for _ in range(MOST_VALUES):
        if not waiting:
            return
        place, value = waiting.pop()
        if isinstance(value, str):
            file = None if place.meaning.is_no_file else _file(place, value.strip())
            if file is not None:
                yield file
            continue
        below = _fields_of(place, value) if isinstance(value, dict) else _items_of(place, value)
        waiting += reversed(below)


def _may_lead_to_files(value: Any) -> bool:
    return (isinstance(value, dict | list) and bool(value)) or is_url(value)


def _items_of(place: _Place, value: list[Any]) -> list[tuple[_Place, Any]]:
    return [
        (_Place(_joined(place.path, index), place.meaning, place.content_type), item)
        for index, item in enumerate(value)
        if _may_lead_to_files(item)
    ]


def _fields_of(place: _Place, value: dict[str, Any]) -> list[tuple[_Place, Any]]:
    """Return the fields of an object. A picture beside a sound or a video in the same object is its cover."""
    content_type = _content_type_in(value) or place.content_type
    fields: list[tuple[_Place, Any]] = []
    for name, item in value.items():
        if _may_lead_to_files(item):
            meaning = _within(place.meaning, meaning_of(name[:LONGEST_NAME]))
            fields.append((_Place(_joined(place.path, name), meaning, content_type), item))
    kinds = [_kind_of(item, each.meaning, content_type) if isinstance(item, str) else None for each, item in fields]
    if VIDEO in kinds or AUDIO in kinds:
        return [
            (replace(each, meaning=replace(each.meaning, is_beside=True)) if kind == IMAGE else each, item)
            for (each, item), kind in zip(fields, kinds, strict=True)
        ]
    return fields


def _within(outer: NameMeaning, own: NameMeaning) -> NameMeaning:
    """Return what a name tells inside a field: the inner name tells the kind, if it tells one."""
    return NameMeaning(
        kind=own.kind or outer.kind,
        is_file=own.is_file or own.kind is not None,
        is_beside=own.is_beside or outer.is_beside,
        is_no_file=own.is_no_file or outer.is_no_file,
    )


def _file(place: _Place, url: str) -> OutputFile | None:
    """Return the file at a URL; None if nothing tells that it is one, as with the address of a page."""
    kind = _kind_of(url, place.meaning, place.content_type)
    if kind is None and (not place.meaning.is_file or _ending(url) in _PAGE_ENDINGS):
        return None
    kind = kind or OTHER
    content_type = place.content_type if _fits(place.content_type, kind) else None
    return OutputFile(url, kind, place.path, content_type, not place.meaning.is_beside)


def _kind_of(url: str, meaning: NameMeaning, content_type: str | None) -> str | None:
    """Return the kind that the content type tells, else the ending, else the names; None if none does.

    A content type is not believed where a name on the way tells another kind: it may be that of another file.
    """
    by_type, by_ending = _kind_of_type(content_type), KIND_BY_ENDING.get(_ending(url))
    if by_type not in (None, OTHER) and meaning.kind in (None, by_type):
        return by_type
    if by_ending not in (None, OTHER):
        return by_ending
    return meaning.kind or by_ending or by_type


def _kind_of_type(content_type: str | None) -> str | None:
    if content_type is None:
        return None
    text = content_type.lower()
    if any(each in text for each in _MODEL_TYPES):
        return MODEL
    return next((kind for kind in (IMAGE, VIDEO, AUDIO, TEXT) if kind in text), OTHER if "/" in text else None)


def _fits(content_type: str | None, kind: str) -> bool:
    return content_type is not None and _kind_of_type(content_type) == kind


def _ending(url: str) -> str:
    """Return the ending of a URL's path in lower case, "" if it has none."""
    path = re.split(r"[?#]", url[8:], maxsplit=1)[0]
    _, slash, last = path.rpartition("/")
    match = _ENDING.search(unquote(last)) if slash else None
    return match[1].lower() if match else ""


def _content_type_in(value: dict[str, Any]) -> str | None:
    found = next((value[name] for name in CONTENT_TYPE_NAMES if isinstance(value.get(name), str) and value[name]), None)
    return found[:_LONGEST_CONTENT_TYPE] if found else None


def _joined(path: str, part: str | int) -> str:
    """Return the path of an item or field within `path`, in the form of the references of an input map."""
    if isinstance(part, int):
        return f"{path}[{part}]"[:_LONGEST_PATH]
    name = part if _PLAIN_NAME.fullmatch(part[:_LONGEST_PATH]) else json.dumps(part[:_LONGEST_PATH], ensure_ascii=False)
    return f"{path}.{name}"[:_LONGEST_PATH] if path else name[:_LONGEST_PATH]
