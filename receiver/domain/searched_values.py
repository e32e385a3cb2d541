"""By which values of its metadata a task is found."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

LONGEST = 100
"""Characters of a value; a longer one is found by its first ones."""
MOST = 20
"""Values of a task."""
UNLISTED = ""
"""Stands for those beyond the first `MOST`."""
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})", re.ASCII)


def searched_values(metadata: Any) -> list[str]:
    """Return the values that a task with these metadata is found by: each once, in the form of `searched_form`.

    They are the first ones that are texts, numbers or booleans, not those inside of lists and objects; then `UNLISTED`
    if there are more.
    """
    found = list(dict.fromkeys(_values(metadata))) if isinstance(metadata, Mapping) else []
    return found if len(found) <= MOST else [*found[:MOST], UNLISTED]


def listed_form(value: str) -> str | None:
    """Return the form in which each task that has this value, as the databases compare it, is listed by it.

    None if such a task may not be listed so: by what is null, a list or an object, or a number in some other notation.
    """
    form = searched_form(value)
    if not form or form == "null" or form[0] in "[{" or "\0" in value:
        return None
    return form if _WHOLE_NUMBER.fullmatch(form) or not _is_number(form) else None


def searched_form(text: str) -> str:
    """Return a text in the form in which values are compared."""
    return text.strip().lower().replace("\0", "")[:LONGEST]


def _values(metadata: Mapping[str, Any]) -> Iterator[str]:
    for value in metadata.values():
        if value is not None and not isinstance(value, dict | list):
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            if shown := searched_form(text):
                yield shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
