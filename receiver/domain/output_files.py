"""Finds the files of an output: every URL in it that is a file, at any depth, with its kind. Pure.

The order is fixed: first the results that stand in the fields of `OUTPUT_FIELDS`, in the order of that table; then
other results as they appear; then what comes with a result (covers, thumbnails, frames, repeated inputs), the table's
first. Each URL is listed once. The work is bounded, whatever the output is, and nothing here is recursive or raises.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import unquote

import orjson
from msgspec import Struct
from msgspec.structs import replace

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
    meaning_within,
)

MOST_FILES = 1000
MOST_VALUES = 5000
"""How many objects, lists and URLs of an output are looked at."""
LONGEST_URL = 8192
LONGEST_JSON = 256 * 1024
"""Characters of a text that is read as JSON."""
_LONGEST_PATH = 300
_LONGEST_CONTENT_TYPE = 100
_URL = re.compile(r"https?://[^\s/?#]++(?P<path>[^\s?#]*+)\S*+", re.IGNORECASE)
# Possessive: a text that begins like a URL and goes on after a blank would else be tried in every division.
_LONGEST_ENDING = 12
_TYPE_NAMES = frozenset({*CONTENT_TYPE_NAMES, "type"})
_KIND_OR_MIME = re.compile(r"(?:image|video|audio)(?:/[\w.+-]{1,60})?", re.IGNORECASE)
_PAGE_ENDINGS = frozenset({"html", "htm", "php", "aspx"})
_MODEL_TYPES = ("model/", "gltf")
_Steps = tuple[tuple[str, str], ...]
"""The names of a path, each with "[]" or "{}" if what is there is spread, else ""."""
_Found = tuple[str, Any, str | None]
"""The path of a value, the value, and the content type beside it."""
_TABLE: dict[str, list[tuple[_Steps, OutputField, int]]] = {}
"""The fields of the table with their place in it, by the first name of their path."""
for _place, _field in enumerate(OUTPUT_FIELDS):
    _steps = tuple((name, spread) for name, spread in re.findall(r"(\w+)(\[\]|\{\})?", _field.path))
    _TABLE.setdefault(_steps[0][0], []).append((_steps, _field, _place))


class OutputFile(Struct):
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
    seen: dict[_Steps, list[_Found]] = {}
    for steps, field in _fields_present(output):
        for file in _files_of(_values_at(output, steps, seen), field):
            if len(known) < MOST_FILES:
                known.setdefault(file.url, file)
    other: dict[str, OutputFile] = {}
    if _has_other_url(output, known):
        for file in _files_by_name(output):
            if len(known) + len(other) >= MOST_FILES:
                break
            if file.url not in known:
                other.setdefault(file.url, file)
    found = [*known.values(), *other.values()]
    return [file for file in found if file.is_result] + [file for file in found if not file.is_result]


def is_url(value: Any) -> bool:
    """Return whether a value is an http or https URL. Base64, `data:` URLs, and texts that begin with one are not."""
    # Some models return the image itself, in base64, in the field where others return its URL.
    if not isinstance(value, str) or len(value) > LONGEST_URL:
        return False
    text = value.strip()
    return text[:4].lower() == "http" and _URL.fullmatch(text) is not None


def _fields_present(output: dict[str, Any]) -> list[tuple[_Steps, OutputField]]:
    """Return the fields of the table whose first name has a value, in the table's order."""
    rows = [row for name, value in output.items() if value and name in _TABLE for row in _TABLE[name]]
    return [(steps, field) for steps, field, _ in sorted(rows, key=lambda row: row[2])]


def _has_other_url(output: dict[str, Any], known: Mapping[str, Any]) -> bool:
    """Return whether there is a URL that is not known: only then are the names of all fields looked at."""
    waiting: list[Any] = [output]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value not in known and _may_lead_to_files(value) and value.strip() not in known:
            return True
    return False


def _files_of(level: list[_Found], field: OutputField) -> Iterator[OutputFile]:
    """Yield the files in one field of the table. Of several URLs in one object only the preferred one is a result."""
    for path, value, beside in level:
        for name, url, content_type, is_preferred in _urls_in(path, value, beside):
            kind = field.kind or _kind_of(url, meaning_of(""), content_type) or OTHER
            shown_type = content_type if content_type is not None and _fits(content_type, kind) else None
            yield OutputFile(url, kind, name, shown_type, field.is_result and is_preferred)


def _values_at(output: dict[str, Any], steps: _Steps, seen: dict[_Steps, list[_Found]]) -> list[_Found]:
    """Return what `steps` lead to, at most 1,000 values. `seen` has what the beginnings of paths lead to."""
    if steps not in seen:
        level: list[_Found] = _values_at(output, steps[:-1], seen) if steps[:-1] else [("", output, None)]
        seen[steps] = _step(level, *steps[-1])[:MOST_FILES]
    return seen[steps]


def _step(level: list[_Found], name: str, spread: str) -> list[_Found]:
    below: list[_Found] = []
    for path, value, content_type in level:
        found = value.get(name) if isinstance(value, dict) else None
        if not found:
            continue
        place = f"{path}.{name}" if path else name
        beside = _content_type_in(value) or content_type
        if spread:
            below += [(each, item, beside) for each, item in _items(place, found, also_of_objects=spread == "{}")]
        else:
            below.append((place, found, beside))
    return below


def _items(path: str, value: Any, *, also_of_objects: bool = False) -> list[tuple[str, Any]]:
    if isinstance(value, list):
        return [(_joined(path, index), item) for index, item in enumerate(value[:MOST_FILES])]
    if also_of_objects and isinstance(value, dict):
        return [(_joined(path, name), value[name]) for name in list(value)[:MOST_FILES]]
    return []


def _urls_in(path: str, value: Any, content_type: str | None) -> Iterator[tuple[str, str, str | None, bool]]:
    """Yield (path, URL, content type, whether it is the preferred one) of a URL, an object with some, or a list."""
    for each_path, item in _items(path, value) if isinstance(value, list) else ((path, value),):
        if isinstance(item, dict):
            names = [name for name in URL_NAMES if name in item and is_url(item[name])]
            beside = _content_type_in(item) or content_type
            for name in names:
                yield f"{each_path}.{name}"[:_LONGEST_PATH], item[name].strip(), beside, name is names[0]
        elif is_url(item):
            yield each_path, item.strip(), content_type, True


_Place = tuple[str, NameMeaning, str | None]
"""Where a value is: its path, what the names on the way tell, and the content type of the nearest object."""


def _files_by_name(output: dict[str, Any]) -> Iterator[OutputFile]:
    """Yield the files that their field's name, their ending or a content type shows, in order of appearance.

    In a text that is JSON too: the name of a file in it is the path of the text.
    """
    waiting: list[tuple[_Place, Any, str | None]] = [(("", meaning_of(""), None), output, None)]
    for _ in range(MOST_VALUES):
        if not waiting:
            return
        place, value, text_path = waiting.pop()
        if isinstance(value, str) and not is_url(value):
            value, text_path = (_json_in(value), place[0]) if text_path is None else (None, text_path)
        if isinstance(value, str):
            file = _file(place, value.strip())
            if file is not None:
                yield file if text_path is None else replace(file, name=text_path)
        elif value is not None:
            below = _fields_of(place, value) if isinstance(value, dict) else _items_of(place, value)
            waiting += [(each, item, text_path) for each, item in reversed(below)]


def _may_lead_to_files(value: Any) -> bool:
    if isinstance(value, str):
        return is_url(value) or _may_be_json(value)
    return isinstance(value, dict | list) and bool(value)


def _may_be_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[") and len(text) <= LONGEST_JSON and "http" in text


def _json_in(text: str) -> dict[str, Any] | list[Any] | None:
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict | list) else None


def _items_of(place: _Place, value: list[Any]) -> list[tuple[_Place, Any]]:
    path, meaning, content_type = place
    items = ((index, item) for index, item in enumerate(value) if _may_lead_to_files(item))
    return [((_joined(path, index), meaning, content_type), item) for index, item in islice(items, MOST_VALUES)]


def _fields_of(place: _Place, value: dict[str, Any]) -> list[tuple[_Place, Any]]:
    """Return the fields of an object. A picture beside a sound or a video in the same object is its cover."""
    path, outer, content_type = place
    content_type = _content_type_in(value) or content_type
    fields: list[tuple[_Place, Any]] = []
    kinds: list[str | None] = []
    leading = ((name, item) for name, item in value.items() if _may_lead_to_files(item))
    for name, item in islice(leading, MOST_VALUES):
        meaning = meaning_within(outer, name[:LONGEST_NAME])
        fields.append(((_joined(path, name), meaning, content_type), item))
        kinds.append(_kind_of(item, meaning, content_type) if isinstance(item, str) else None)
    if VIDEO not in kinds and AUDIO not in kinds:
        return fields
    return [
        ((each[0], each[1]._replace(is_beside=True), each[2]) if kind == IMAGE else each, item)
        for (each, item), kind in zip(fields, kinds, strict=True)
    ]


def _file(place: _Place, url: str) -> OutputFile | None:
    """Return the file at a URL; None if nothing tells that it is one, as with the address of a page."""
    path, meaning, content_type = place
    kind = _kind_of(url, meaning, content_type)
    if meaning.is_no_file or (kind is None and (not meaning.is_file or _ending(url) in _PAGE_ENDINGS)):
        return None
    kind = kind or OTHER
    return OutputFile(url, kind, path, content_type if _fits(content_type, kind) else None, not meaning.is_beside)


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


@lru_cache(maxsize=256)
def _kind_of_type(content_type: str | None) -> str | None:
    if content_type is None:
        return None
    text = content_type.lower()
    if any(each in text for each in _MODEL_TYPES):
        return MODEL
    named = next((kind for kind in (IMAGE, VIDEO, AUDIO, TEXT) if kind in text), None)
    # Some models write an ending there: `mp3`.
    return named or KIND_BY_ENDING.get(text.strip(" .")) or (OTHER if "/" in text else None)


def _fits(content_type: str | None, kind: str) -> bool:
    return content_type is not None and _kind_of_type(content_type) == kind


def _ending(url: str) -> str:
    """Return the ending of a URL's path in lower case, "" if it has none."""
    match = _URL.match(url)
    last = match["path"].rpartition("/")[2] if match else ""
    name, _, ending = (unquote(last) if "%" in last else last).rpartition(".")
    return ending.lower() if name and ending.isalnum() and len(ending) <= _LONGEST_ENDING else ""


def _content_type_in(value: dict[str, Any]) -> str | None:
    """Return the content type that an object has, or its `type` if that is a kind or a MIME type of one."""
    if _TYPE_NAMES.isdisjoint(value):
        return None
    found = next((value[name] for name in CONTENT_TYPE_NAMES if isinstance(value.get(name), str) and value[name]), None)
    if found is None and isinstance(value.get("type"), str) and _KIND_OR_MIME.fullmatch(value["type"]):
        found = value["type"]
    return found[:_LONGEST_CONTENT_TYPE] if found else None


def _joined(path: str, part: str | int) -> str:
    """Return the path of an item or field within `path`, in the form of the references of an input map."""
    if isinstance(part, int):
        return f"{path}[{part}]"[:_LONGEST_PATH]
    name = part[:_LONGEST_PATH]
    if not (name.isascii() and name.isidentifier()):
        name = json.dumps(name, ensure_ascii=False)
    return f"{path}.{name}"[:_LONGEST_PATH] if path else name[:_LONGEST_PATH]
