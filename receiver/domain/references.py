"""Data between steps: `$steps.<id>.result[.<path>]` and `$run.metadata[.<path>]`, read and followed. Pure.

A path is JMESPath's plain subset (https://jmespath.org/specification.html): names, quoted names, dots and indexes,
a negative one from the end: `image_urls[0]`, `works[-1]."cover-url"`. A reference is the whole of a value in
`input_map`; nothing is looked for inside longer texts or nested objects. As in JMESPath, what is null is not there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from receiver.errors import BadRequest, RingbackError

LONGEST_ID = 64
STEP_ID = rf"[A-Za-z0-9_-]{{1,{LONGEST_ID}}}"
"""A step's id, as a regular expression."""
LONGEST_REFERENCE = 500
Path = tuple[str | int, ...]
"""Names and indexes, the outermost first."""

_ROOT = re.compile(rf"\$steps\.(?P<step>{STEP_ID})\.result|\$run\.metadata")
_PART = re.compile(
    r"""\.(?P<name>[A-Za-z_][A-Za-z0-9_]*) | \.(?P<quoted>"(?:[^"\\]|\\.)+") | \[(?P<index>-?[0-9]{1,9})\]""",
    re.VERBOSE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMS = "`$steps.<id>.result[.<path>]` or `$run.metadata[.<path>]`"
_MOST_NAMES = 10
_LONGEST_NAME = 40


class BadReference(BadRequest):
    """A reference or a path that cannot be read."""

    code = "invalid_reference"


class LeadsNowhere(RingbackError):
    """There is nothing where a reference points; `message` says how far it led and what was there."""

    code = "reference_leads_nowhere"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference, read. `step_id` is None for one to the run's metadata."""

    text: str
    step_id: str | None
    path: Path = ()

    @property
    def root(self) -> str:
        """What the path begins at."""
        return "$run.metadata" if self.step_id is None else f"$steps.{self.step_id}.result"


def parse_reference(text: str) -> Reference:
    """Return the reference that `text` is. Raises `BadReference`."""
    _check_length(text)
    root = _ROOT.match(text)
    if root is None:
        raise BadReference(f"{_cut(text)!r} is no reference: write {_FORMS}")
    return Reference(text, root["step"], _parts(text, root.end()))


def parse_path(text: str) -> Path:
    """Return the path that `text` is, such as `image_urls[0]`: it begins with a name. Raises `BadReference`."""
    _check_length(text)
    return _parts(f".{text}", 0)


def resolve(reference: Reference, *, results: Mapping[str, Any], metadata: Any) -> Any:
    """Return what `reference` points at; `results` has each completed step's result by its id.

    Raises `LeadsNowhere`.
    """
    root = metadata if reference.step_id is None else results.get(reference.step_id)
    value, led = _walk(reference.path, root)
    if led == len(reference.path) and value is not None:
        return value
    reached = reference.root + "".join(map(_shown, reference.path[:led]))
    raise LeadsNowhere(f"`{reference.text}` leads nowhere: `{reached}` is {_kind(value)}")


def look_up(path: Path, value: Any) -> Any:
    """Return what `path` points at within `value`, or None."""
    found, led = _walk(path, value)
    return found if led == len(path) else None


def mapped_input(
    given: Mapping[str, Any], input_map: Mapping[str, str], *, results: Mapping[str, Any], metadata: Any
) -> dict[str, Any]:
    """Return a step's `input` with the names of its `input_map` filled in; the map's stand above the input's own.

    A name is one name, dots and all. Raises `LeadsNowhere` for the first that points at nothing.
    """
    mapped = {
        name: resolve(parse_reference(text), results=results, metadata=metadata) for name, text in input_map.items()
    }
    return {**given, **mapped}


def _check_length(text: str) -> None:
    if len(text) > LONGEST_REFERENCE:
        raise BadReference(f"{_cut(text)!r} is too long: at most {LONGEST_REFERENCE} characters")


def _parts(text: str, at: int) -> Path:
    parts: list[str | int] = []
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or (found["index"] and not parts):
            raise _unreadable(text, at)
        parts.append(int(found["index"]) if found["index"] else found["name"] or _unquoted(found["quoted"], text, at))
        at = found.end()
    return tuple(parts)


def _unquoted(quoted: str, text: str, at: int) -> str:
    try:
        return str(orjson.loads(quoted))
    except orjson.JSONDecodeError:
        raise _unreadable(text, at) from None


def _unreadable(text: str, at: int) -> BadReference:
    return BadReference(
        f"{_cut(text.removeprefix('.'))!r} cannot be read from {_cut(text[at:])!r} on: a path is names and indexes, "
        'such as .image_urls[0], and a name with other characters stands in quotes, ."image-url"'
    )


def _walk(path: Path, value: Any) -> tuple[Any, int]:
    """Follow `path` as far as it leads; return what is there, and after how many parts."""
    for led, part in enumerate(path):
        if not _has(value, part):
            return value, led
        value = value[part]
    return value, len(path)


def _has(value: Any, part: str | int) -> bool:
    if isinstance(part, str):
        return isinstance(value, dict) and part in value
    return isinstance(value, list) and -len(value) <= part < len(value)


def _shown(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _PLAIN_NAME.fullmatch(part) else f".{orjson.dumps(part).decode()}"


def _kind(value: Any) -> str:
    """Say what a value is, and never the value: it may be long, or nobody's business."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a text of {len(value)} characters"
        case list():
            return f"a list of {len(value)}"
        case dict() if value:
            return f"an object with {_names(value)}"
    return "an empty object"


def _names(value: Mapping[str, Any]) -> str:
    names = [_cut(name) for name in list(value)[:_MOST_NAMES]]
    more = len(value) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
