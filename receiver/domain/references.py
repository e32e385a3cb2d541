"""References, which pass data between steps: `$steps.<id>.result[.<path>]` and `$run.metadata[.<path>]`.

A path is a subset of JMESPath (https://jmespath.org/specification.html): names, quoted names, dots and indexes, of
which a negative one counts from the end: `image_urls[0]`, `works[-1]."cover-url"`. A reference is a whole value of
`input_map`; longer texts and nested objects are not searched for references. As in JMESPath, null means no value.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct

from receiver.errors import BadRequest, RingbackError

LONGEST_ID = 64
STEP_ID = rf"[A-Za-z0-9_-]{{1,{LONGEST_ID}}}"
"""A regular expression for the id of a step."""
LONGEST_REFERENCE = 500
Path = tuple[str | int, ...]
"""Names and indexes, outermost first."""

_ROOT = re.compile(rf"\$steps\.(?P<step>{STEP_ID})\.result|\$run\.metadata")
_PART = re.compile(
    r"""\.(?P<name>[A-Za-z_][A-Za-z0-9_]*) | \.(?P<quoted>"(?:[^"\\]|\\.)+") | \[(?P<index>-?[0-9]{1,9})\]""",
    re.VERBOSE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMS = "`$steps.<id>.result[.<path>]` or `$run.metadata[.<path>]`"
_MOST_NAMES = 10
_LONGEST_NAME = 40


class InvalidReference(BadRequest):
    """The syntax of a reference or a path is invalid."""

    code = "invalid_reference"


class UnresolvedReference(RingbackError):
    """A reference has no value; `message` says which part of its path exists, and what is found there."""

    code = "reference_leads_nowhere"


class Reference(Struct, frozen=True):
    """A parsed reference. `step_id` is None for a reference to the run's metadata."""

    text: str
    step_id: str | None
    path: Path = ()

    @property
    def root(self) -> str:
        """The text before the path."""
        return "$run.metadata" if self.step_id is None else f"$steps.{self.step_id}.result"


def parse_reference(text: str) -> Reference:
    """Return the parsed reference. Raises `InvalidReference`."""
    _check_length(text)
    root = _ROOT.match(text)
    if root is None:
        raise InvalidReference(f"{_truncated(text)!r} is not a reference: write {_FORMS}")
    return Reference(text, root["step"], _parts(text, root.end()))


def parse_path(text: str) -> Path:
    """Return a parsed path, such as `image_urls[0]`. It must begin with a name. Raises `InvalidReference`."""
    _check_length(text)
    return _parts(f".{text}", 0)


def resolve(reference: Reference, *, results: Mapping[str, Any], metadata: Any) -> Any:
    """Return the value of `reference`. `results` has the result of each completed step, by its id.

    Raises `UnresolvedReference` if it has no value.
    """
    root = metadata if reference.step_id is None else results.get(reference.step_id)
    value, depth = _follow(reference.path, root)
    if depth == len(reference.path) and value is not None:
        return value
    reached = reference.root + "".join(map(_part_text, reference.path[:depth]))
    raise UnresolvedReference(f"`{reference.text}` has no value: `{reached}` is {_description(value)}")


def look_up(path: Path, value: Any) -> Any:
    """Return the value at `path` within `value`, or None."""
    found, depth = _follow(path, value)
    return found if depth == len(path) else None


def mapped_input(
    given: Mapping[str, Any], input_map: Mapping[str, str], *, results: Mapping[str, Any], metadata: Any
) -> dict[str, Any]:
    """Return a step's `input` with the names of its `input_map`, which override those of the input.

    A name with dots is one name, not a path. Raises `UnresolvedReference` for the first reference without a value.
    """
    mapped = {
        name: resolve(parse_reference(text), results=results, metadata=metadata) for name, text in input_map.items()
    }
    return {**given, **mapped}


def _check_length(text: str) -> None:
    if len(text) > LONGEST_REFERENCE:
        raise InvalidReference(f"{_truncated(text)!r} is too long: use at most {LONGEST_REFERENCE} characters")


def _parts(text: str, at: int) -> Path:
    parts: list[str | int] = []
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or (found["index"] and not parts):
            raise _invalid_path(text, at)
        parts.append(int(found["index"]) if found["index"] else found["name"] or _unquoted(found["quoted"], text, at))
        at = found.end()
    return tuple(parts)


def _unquoted(quoted: str, text: str, at: int) -> str:
    try:
        return str(orjson.loads(quoted))
    except orjson.JSONDecodeError:
        raise _invalid_path(text, at) from None


def _invalid_path(text: str, at: int) -> InvalidReference:
    return InvalidReference(
        f"{_truncated(text.removeprefix('.'))!r} cannot be parsed from {_truncated(text[at:])!r} on: write names and "
        'indexes, such as .image_urls[0], and a name with other characters in quotes, such as ."image-url"'
    )


def _follow(path: Path, value: Any) -> tuple[Any, int]:
    """Follow `path` as long as its parts exist; return the last value, and the number of parts that lead to it."""
    for depth, part in enumerate(path):
        if not _has(value, part):
            return value, depth
        value = value[part]
    return value, len(path)


def _has(value: Any, part: str | int) -> bool:
    if isinstance(part, str):
        return isinstance(value, dict) and part in value
    return isinstance(value, list) and -len(value) <= part < len(value)


def _part_text(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _PLAIN_NAME.fullmatch(part) else f".{orjson.dumps(part).decode()}"


def _description(value: Any) -> str:
    """Return what kind of value this is, never the value itself, which may be long or confidential."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return f"a list of {len(value)}"
        case dict() if value:
            return f"an object with {_names(value)}"
    return "an empty object"


def _names(value: Mapping[str, Any]) -> str:
    names = [_truncated(name) for name in list(value)[:_MOST_NAMES]]
    more = len(value) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _truncated(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
