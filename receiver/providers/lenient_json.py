"""Reads the JSON that providers send, also where a library, a template or a proxy made it not quite JSON.

One odd byte must not make a whole result unreadable. What comes out is JSON that `orjson.dumps` writes and that both
databases store: no lone surrogates, no NULs, no numbers that are not finite, no deep nesting.

| in a body | becomes |
|---|---|
| UTF-8, UTF-16 or UTF-32, with or without a byte order mark, also one in Latin-1's letters | the same text |
| bytes that are invalid in that encoding, lone surrogates (escaped or raw, also in names) | U+FFFD |
| control characters in texts | themselves; NULs are removed, escaped ones too |
| a backslash in a text that begins no escape of JSON | itself; `\\'` is an apostrophe |
| blanks, byte order marks, control characters and invalid bytes between values | nothing |
| NaN, infinities (each library has its own words), numbers beyond a double such as 1e999 | null |
| `undefined`, `None`, `nil`; `True`, `False` | null; true, false |
| numbers such as `+5`, `.5`, `5.` and `007` | the same number |
| a comma before a closing bracket | nothing |
| integers beyond 64 bits | a double, as JavaScript reads them |
| a name twice in an object | the last one |
| arrays and objects more than `DEEPEST` levels deep | null, or the body is refused |
| more than `receiver.domain.json_bounds.MOST_VALUES` values | the body is refused |

Well-formed JSON is read by orjson alone; the rest of this module runs only after that has failed. It reads a body in a
time that grows with its length, whatever is in it.
"""

import codecs
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

from receiver.domain.json_bounds import MOST_VALUES, has_more_values
from receiver.providers.base import MalformedUpdate

DEEPEST = 100
"""Levels of nesting. orjson reads 1024 but writes 254, and what is stored is wrapped in a few more."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before UTF-16's, with which the first of them begins.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARK_IN_LETTERS = codecs.BOM_UTF8.decode("latin-1")
"""UTF-8's mark, read as Latin-1 and written as UTF-8 again."""
_SURROGATE_PAIR = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
_LONE_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
"""Surrogates as UTF-8 would have them if it allowed them (CESU-8). No valid UTF-8 contains these bytes."""

# Possessive, and also matching where the end is missing: no text makes it slow or needs much memory.
_TEXT = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_BLANK = r"\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff\ufffd"
_BEGINNING = re.compile(rf'[{_BLANK}]*+[\[{{"0-9+\-tfni]', re.IGNORECASE)
"""How every JSON value begins: a web page, the usual body that is none, is not looked at any further."""
_PARTS = re.compile(
    rf"(?P<text>{_TEXT})|(?P<blank>[{_BLANK}]+)|(?P<comma>,)(?=[{_BLANK}]*+[\]}}])"
    rf'|(?P<word>[^"{{}}\[\],:{_BLANK}]+)',
    re.DOTALL,
)
_BRACKETS = re.compile(rf"{_TEXT}|(?P<opening>[\[{{])|(?P<closing>[\]}}])", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LOOSE_NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_WORDS = {"undefined": "null", "None": "null", "nil": "null", "True": "true", "False": "false"}
"""What templates of other languages write."""
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf(?:inity)?|1\.\#(?:inf|ind|nan|[qs]nan)[0-9]*)(?:\([^()]*\))?", re.IGNORECASE)
"""As the libraries of Python, JavaScript, Java, Go and Lua write them, and the C libraries of Linux and Windows."""
_HEX = "[0-9a-fA-F]"
_IN_TEXT = re.compile(
    rf"""
    (?P<valid> (?: \\(?: ["\\/bfnrt] | u(?![dD][89a-fA-F]){_HEX}{{4}}
                      | u[dD][89abAB]{_HEX}{{2}} \\u[dD][c-fC-F]{_HEX}{{2}} ) )++ )
    | (?P<surrogate> \\u[dD][89a-fA-F]{_HEX}{{2}} )
    | (?P<apostrophe> \\' )
    | (?P<backslash> \\ )
    """,
    re.VERBOSE,
)
"""Every backslash in a text, with what may belong to it."""
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x20)}


def read_json(body: bytes, *, cut: bool = False) -> Any:
    """Return the JSON value of `body`. Raises `MalformedUpdate` if it has none, and nothing else.

    `cut` says whether what is too deep becomes null; otherwise such a body is malformed.
    """
    if has_more_values(body, MOST_VALUES):
        raise MalformedUpdate(f"the body has more than {MOST_VALUES} values")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _read_leniently(body, cut=cut)
    return _read_leniently(body, cut=cut) if _is_too_deep(value, body) else _without_nuls(value, body)


def _read_leniently(body: bytes, *, cut: bool) -> Any:
    tried: bytes | None = None
    for written, is_cut in _readings(body):
        if written == tried:
            continue
        tried = written
        try:
            value = orjson.loads(written)
        except orjson.JSONDecodeError:
            continue
        is_deep = not is_cut and _is_too_deep(value, written)
        if (is_deep or is_cut) and not cut:
            raise MalformedUpdate("the body is nested too deeply")
        if not is_deep:
            return _without_nuls(value, written)
    raise MalformedUpdate("the body is not JSON")


def _readings(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the body, then what it may have meant: in another encoding, with its faults mended, not so deep.

    With each comes whether it was cut.
    """
    yield body, False
    for encoding in _encodings(body):
        text = _decode(body, encoding)
        if _BEGINNING.match(text) is None:
            continue
        yield text.encode(), False
        mended = _PARTS.sub(_mend, text)
        yield mended.encode(), False
        yield _without_depths(mended).encode(), True


def _encodings(body: bytes) -> list[str]:
    """Return the encodings that the first bytes speak for, likeliest first.

    JSON begins with an ASCII character, so the zeros beside it tell the width and the order of the bytes.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return [encoding, "utf-8"] if encoding != "utf-8" else [encoding]
    match [byte != 0 for byte in body[:4]]:
        case [True, False, False, False]:
            return ["utf-32-le", "utf-8"]
        case [False, False, False, True]:
            return ["utf-32-be", "utf-8"]
        case [True, False, *_]:
            return ["utf-16-le", "utf-8"]
        case [False, True, *_]:
            return ["utf-16-be", "utf-8"]
    return ["utf-8"]


def _decode(body: bytes, encoding: str) -> str:
    """Return the text, without a byte order mark before it; what is invalid becomes U+FFFD."""
    if encoding == "utf-8":
        body = _LONE_SURROGATE.sub("\ufffd".encode(), _SURROGATE_PAIR.sub(_join_surrogates, body))
    return body.decode(encoding, "replace").removeprefix("\ufeff").removeprefix(_MARK_IN_LETTERS)


def _join_surrogates(pair: re.Match[bytes]) -> bytes:
    halves = pair[0].decode("utf-8", "surrogatepass")
    return halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode()


def _mend(part: re.Match[str]) -> str:
    """Return a text, a run of blanks or a word between the brackets, commas and colons as JSON wants it."""
    found = part[0]
    match part.lastgroup:
        case "text":
            return (_IN_TEXT.sub(_mend_character, found) if "\\" in found else found).translate(_CONTROLS)
        case "blank":
            return " "
        case "comma":
            return ""
    if _LOOSE_NUMBER.fullmatch(found):
        return _number(found)
    return "null" if _NOT_FINITE.fullmatch(found) else _WORDS.get(found, found)


def _number(found: str) -> str:
    value = float(found)
    if not math.isfinite(value):
        return "null"
    if _NUMBER.fullmatch(found):
        return found
    sign, digits = "-" * found.startswith("-"), found.lstrip("+-0")
    return sign + digits if digits.isdecimal() else repr(value)


def _mend_character(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "surrogate":
            return "\ufffd"
        case "apostrophe":
            return "'"
        case "backslash":
            return "\\\\"
    return found[0]


def _is_too_deep(value: Any, written: bytes) -> bool:
    if written.count(b"[") + written.count(b"{") <= DEEPEST:
        return False  # no value has more levels than it has brackets
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [each for each in level if type(each) is dict or type(each) is list]
        if not level:
            return False
        level = [item for each in level for item in (each.values() if type(each) is dict else each)]
    return True


def _without_depths(text: str) -> str:
    """Return JSON with null in place of every array and object that is more than `DEEPEST` levels deep."""
    kept: list[str] = []
    depth = begin = 0
    for bracket in _BRACKETS.finditer(text):
        if bracket["opening"]:
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[begin : bracket.start()])
        elif bracket["closing"]:
            if depth == DEEPEST + 1:
                kept.append("null")
                begin = bracket.end()
            depth -= 1
    # One that is not closed is no JSON, and stays none.
    return "".join([*kept, text[begin:]]) if depth == 0 else text


def _without_nuls(value: Any, written: bytes) -> Any:
    return _remove_nuls(value) if b"\\u0000" in written else value


def _remove_nuls(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_remove_nuls(item) for item in value]
    if isinstance(value, dict):
        return {key.replace("\0", ""): _remove_nuls(item) for key, item in value.items()}
    return value
