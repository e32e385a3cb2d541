"""Text from outside (providers, subscribers, clients), made safe to print.

A terminal obeys control sequences, some characters reverse the order of those that follow, others cannot be seen, and a
line break can make one line of a log look like two. All of them become visible escapes, such as `\\x1b` or `\\u202e`.
"""

import unicodedata

_JOINERS = "\u200c\u200d"
"""Without a width, and part of how Persian and many emoji are written: they move and hide nothing."""


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text in which every character is one that a terminal only shows; with `lines`, line breaks stay."""
    if text.isprintable():
        return text
    return "".join(
        letter if _is_shown(letter) or (lines and letter == "\n") else letter.encode("unicode_escape").decode()
        for letter in text
    )


def printable_json(document: str) -> str:
    """Return the same JSON, with such characters in its texts as JSON's own escapes: `\\u001b`."""
    if document.isascii() and "\x7f" not in document:
        return document  # JSON has no control characters of ASCII but DEL
    return "".join(letter if _is_shown(letter) or letter == "\n" else _json_escape(letter) for letter in document)


def _is_shown(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[start : start + 2].hex()}" for start in range(0, len(units), 2))
