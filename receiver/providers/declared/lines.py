"""Finds the line of a key in a TOML file, so that an error can name it."""

import re
from collections.abc import Iterator, Sequence

_TABLE = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=(.*)""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_QUOTES = ('"""', "'''")


def line_of(text: str, path: Sequence[str]) -> int:
    """Return the line, from 1, of a key or table; that of the nearest one around it where it has no line of its own."""
    best, depth = 1, 0
    for number, found in _places(text):
        common = next(
            (n for n, (a, b) in enumerate(zip(found, path, strict=False)) if a != b), min(len(found), len(path))
        )
        if common == len(found) and common > depth:
            best, depth = number, common
    return best


def _places(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    table: tuple[str, ...] = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
        elif found := _TABLE.fullmatch(line):
            table = _parts(found[1])
            yield number, table
        elif found := _KEY.match(line):
            yield number, table + _parts(found[1])
            closing = next((quotes for quotes in _QUOTES if found[2].count(quotes) == 1), "")


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(name))
