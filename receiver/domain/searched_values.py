"""By which values of its metadata a task is found."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

LONGEST = 100
"""Characters of a value; a longer one is found by its first ones."""
MOST = 20
"""Values of a task."""


def searched_values(metadata: Any) -> list[str]:
    """Return the values that a task with these metadata is found by: each once, in the form of `searched_form`.

    They are the first ones that are texts, numbers or booleans, not those inside of lists and objects.
    """
    return list(dict.fromkeys(_values(metadata)))[:MOST] if isinstance(metadata, Mapping) else []


def searched_form(text: str) -> str:
    """Return a text in the form in which values are compared."""
    return text.strip().lower().replace("\0", "")[:LONGEST]


def _values(metadata: Mapping[str, Any]) -> Iterator[str]:
    for value in metadata.values():
        if value is not None and not isinstance(value, dict | list):
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            if shown := searched_form(text):
                yield shown
