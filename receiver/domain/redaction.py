"""Removes the secrets that a provider echoes from what it sends.

A secret that people chose may be as plain as `123456`: PiAPI's own documentation uses that one. In an id, a URL or a
number these characters mean something else, so the shorter a secret is, the more must surround it before it counts:

| characters | redacted |
|---|---|
| under 6 | nowhere: that is no secret, and ordinary words would be lost |
| 6 to 15 | a whole text or name |
| 16 to 31 | also within a text, where it stands as a word of its own |
| 32 and more | anywhere: Ringback's own secrets have 43 random characters |

Besides, an adapter removes by its name what the provider's contract calls a secret, whatever its length.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

REDACTED = "***"
"""The text that replaces a secret wherever a value is stored, logged or returned without it."""

_SHORTEST_WHOLE = 6
_SHORTEST_WORD = 16
_SHORTEST_ANYWHERE = 32
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_MARK = 32
_MARK = re.compile(r"""\\{0,31}["']""")
_MARK_BEFORE = re.compile(r"""\\{0,31}+["']\Z""")
"""Quotes as they look in JSON that is quoted in JSON again and again."""
_JOINS_BEFORE = re.compile(r"[\w/.-]")
_JOINS_AFTER = re.compile(r"[\w/-]|\.\w")
"""A hyphen, slash or dot joins a word to a longer id, path or host name; a dot may also end a sentence."""
_IDS = frozenset({"task_id"})
"""Names whose value is an id: two tasks would become one if it were replaced by the same three asterisks."""


def may_hold(body: bytes, secret: str) -> bool:
    """Return whether JSON in `body` may hold `secret`; False is certain, and saves a look at every text."""
    if len(secret) < _SHORTEST_WHOLE:
        return False
    # UTF-16 and UTF-32 hide any text, \u escapes any character, and characters that are not plain may be escaped too.
    return b"\0" in body or b"\\u" in body or _PLAIN.fullmatch(secret) is None or secret.encode() in body


def redact_value(value: Any, secrets: Sequence[str]) -> Any:
    """Return a JSON value without `secrets`, in texts and in names. Numbers stay as they are."""
    if isinstance(value, str):
        for secret in secrets:
            value = _redact_string(value, secret)
        return value
    if isinstance(value, list):
        return [redact_value(item, secrets) for item in value]
    if isinstance(value, dict):
        return {
            redact_value(name, secrets): item if name in _IDS and isinstance(item, str) else redact_value(item, secrets)
            for name, item in value.items()
        }
    return value


def redact_text(text: str, secret: str) -> str:
    """Return a text that is no JSON, or a part of some, without `secret`: also where it is a whole text in quotes."""
    if len(secret) < _SHORTEST_WHOLE:
        return text
    for form in _written_forms(secret):
        if len(secret) < _SHORTEST_ANYWHERE:
            text = _redact_in_marks(text, form)
        text = _redact_string(text, form)
    return text


def _redact_string(text: str, secret: str) -> str:
    if len(secret) < _SHORTEST_WHOLE or secret not in text:
        return text
    if text == secret:
        return REDACTED
    if len(secret) >= _SHORTEST_ANYWHERE:
        return text.replace(secret, REDACTED)
    if len(secret) >= _SHORTEST_WORD:
        return _redact_word(text, secret)
    return text


def _redact_word(text: str, secret: str) -> str:
    """Redact the secret wherever it is a word of its own.

    Not with one substitution: that would hold all threads up for seconds where a long text has many that are none.
    """
    kept: list[str] = []
    # No word begins within the characters of one that only has such as join.
    step = len(secret) if _PLAIN.fullmatch(secret) else 1
    begin, at = 0, text.find(secret)
    while at >= 0:
        end = at + len(secret)
        if (at == 0 or _JOINS_BEFORE.match(text, at - 1) is None) and _JOINS_AFTER.match(text, end) is None:
            kept += (text[begin:at], REDACTED)
            begin, at = end, text.find(secret, end)
        else:
            at = text.find(secret, at + step)
    return "".join((*kept, text[begin:]))


def _written_forms(secret: str) -> list[str]:
    """Return the secret as it looks in text: itself, and as JSON libraries write it, longest first."""
    escaped = json.dumps(secret)[1:-1]
    forms = {secret, escaped, escaped.replace("/", "\\/"), json.dumps(secret, ensure_ascii=False)[1:-1]}
    return sorted(forms, key=len, reverse=True)


def _redact_in_marks(text: str, form: str) -> str:
    """Redact a form of the secret wherever it is a whole text in quotes, which may be escaped.

    It looks around each place of the form, and not at each quote and backslash of the text, of which there may be many.
    """
    kept: list[str] = []
    begin, at = 0, text.find(form)
    while at >= 0:
        end = at + len(form)
        before, after = _MARK_BEFORE.search(text, max(begin, at - _LONGEST_MARK), at), _MARK.match(text, end)
        if before is not None and after is not None and before[0].endswith(after[0]):
            kept += (text[begin:at], REDACTED)
            begin = end
        at = text.find(form, end)
    return "".join((*kept, text[begin:]))
