"""Tasks that another task's input mentions by Ringback's id, such as its `origin_task_id`. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from receiver.domain.ids import is_id


def ids_in(value: Any) -> set[str]:
    """Return every string in `value`, however deep, that has the form of an id of ours and may be one."""
    return {text for text in _texts(value) if is_id(text)}


def with_ids(value: Any, known: Mapping[str, str]) -> Any:
    """Return `value` with each string that is an id in `known`, however deep, replaced by what it is known as."""
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, list):
        return [with_ids(item, known) for item in value]
    if isinstance(value, dict):
        return {name: with_ids(item, known) for name, item in value.items()}
    return value


def _texts(value: Any) -> Iterator[str]:
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
