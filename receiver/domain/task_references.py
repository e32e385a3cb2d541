"""References to tasks in the input of another task: Ringback's task ids, such as in `origin_task_id`."""

from collections.abc import Iterator, Mapping
from typing import Any

from receiver.domain.ids import is_id

_LENGTH = 36
"""Characters of an id."""


def ids_in(value: Any) -> set[str]:
    """Return every string in `value`, at any depth, that has the form of an id and so may be a task's.

    In lower case, as all ids are: a provider may accept its own in upper case too.
    """
    return {text.lower() for text in _texts(value) if len(text) == _LENGTH and is_id(text.lower())}


def with_ids(value: Any, known: Mapping[str, str]) -> Any:
    """Return `value` with each string that is a key of `known`, at any depth, replaced by its value there.

    An id is also found in upper case.
    """
    if isinstance(value, str):
        return known.get(value.lower() if len(value) == _LENGTH else value, value)
    if isinstance(value, list):
        return [with_ids(item, known) for item in value]
    if isinstance(value, dict):
        return {name: with_ids(item, known) for name, item in value.items()}
    return value


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings of a JSON value, level by level; the names of objects are not among them."""
    level = [value]
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below
