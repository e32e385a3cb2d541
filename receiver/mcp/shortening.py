"""Cuts what is too large for a model's context: long texts, long lists, then whole branches."""

from collections.abc import Mapping
from typing import Any

import orjson

MOST_TOOL_BYTES = 32 * 1024
"""Of what a tool returns, as JSON."""
MOST_RESOURCE_BYTES = 256 * 1024
"""Of what a resource holds."""
_STEPS = ((4_000, 100, 12), (1_000, 50, 10), (500, 20, 8), (300, 10, 6), (200, 10, 5), (200, 0, 0))
"""The longest text in characters, the most members of a list or an object, and the deepest level: from step to step
less is left."""


def shortened(value: Any, size: int, most: int) -> tuple[Any, bool]:
    """Return the value in about `most` bytes of JSON, and whether that needed a cut; it has `size` bytes now.

    An object keeps all its own members, which are the API's: what they hold is cut.
    """
    if size <= most:
        return value, False
    cut = value
    for longest, members, depth in _STEPS:
        if isinstance(value, dict):
            cut = {name: _cut(each, longest, members, depth) for name, each in value.items()}
        else:
            cut = _cut(value, longest, members, depth)
        if size_of(cut) <= most:
            break
    return cut, True


def size_of(value: Any) -> int:
    """Return how many bytes a value has as JSON."""
    return len(orjson.dumps(value))


def _cut(value: Any, longest: int, members: int, depth: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}... (cut: {len(value)} characters)"
    if isinstance(value, Mapping):
        if depth <= 0 and value:
            return f"(cut: an object with {len(value)} members)"
        kept = {name[:200]: _cut(each, longest, members, depth - 1) for name, each in list(value.items())[:members]}
        return kept if len(value) <= members else {**kept, "(cut)": f"{len(value)} members"}
    if isinstance(value, list):
        if depth <= 0 and value:
            return f"(cut: a list with {len(value)} items)"
        kept_items = [_cut(each, longest, members, depth - 1) for each in value[:members]]
        return kept_items if len(value) <= members else [*kept_items, f"(cut: {len(value)} items)"]
    return value
