"""Ids for the outside: UUIDv7, so that newer ones sort after older ones."""

import re

from uuid_utils import uuid7

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """Return a new UUIDv7 in its dashed lower-case form."""
    return str(uuid7())


def is_id(text: str) -> bool:
    """Say whether `text` has the form of an id of ours (of a UUID, that is)."""
    return _UUID.fullmatch(text) is not None
