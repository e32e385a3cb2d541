"""Ids for the outside: UUIDv7, so that newer ones sort after older ones."""

import hashlib
import re
import uuid

from uuid_utils import uuid7

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """Return a new UUIDv7 in its dashed lower-case form."""
    return str(uuid7())


def derived_id(first: str, number: int) -> str:
    """Return a UUIDv7 that follows from the id `first` and a number from 1 to 4095; greater numbers sort later.

    Its time is that of `first`; `number` stands in the twelve bits after it, as RFC 9562 (6.2) has it for counters.
    Raises `ValueError` for another number.
    """
    if not 0 < number < 1 << 12:
        raise ValueError("a request makes at most 4096 ids")
    time_bits = uuid.UUID(first).int >> 80
    rest = int.from_bytes(hashlib.sha256(f"{first}:{number}".encode()).digest()[:8]) >> 2
    return str(uuid.UUID(int=time_bits << 80 | 7 << 76 | number << 64 | 2 << 62 | rest))


def is_id(text: str) -> bool:
    """Say whether `text` has the form of an id of ours (of a UUID, that is)."""
    return _UUID.fullmatch(text) is not None
