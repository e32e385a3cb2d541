"""The ids that the API shows: UUIDv7, so that newer ones sort after older ones. Only `new_id` is not pure."""

import hashlib
import re
import uuid
from datetime import datetime

from uuid_utils import uuid7

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """Return a new random UUIDv7, in lower case with hyphens."""
    return str(uuid7())


def first_id_at(moment: datetime) -> str:
    """Return the UUIDv7 that sorts before all others of this moment, to find rows by the time in their ids."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62))


def derived_id(first: str, number: int) -> str:
    """Return a UUIDv7 that is a function of the id `first` and a `number` from 1 to 4095.

    Why ids are derived: a request with an `Idempotency-Key` may be interrupted after its rows were committed and before
    its response was stored. When the client repeats it, Ringback must find those rows by their ids instead of creating
    a second set of tasks. So the first id of a request is stored with the key before any work is done, and all further
    ids of the request are functions of it: the repeated request computes the same ones, in the same order.

    The time is that of `first`. `number` is in the twelve bits after it, where RFC 9562 (6.2) allows a counter, so that
    ids with greater numbers sort later. The other bits are a hash of both, so that the derived ids of two requests
    differ even if both began in the same millisecond. Raises `ValueError` for a number out of range.
    """
    if not 0 < number < 1 << 12:
        raise ValueError("a request can create at most 4096 ids")
    time_bits = uuid.UUID(first).int >> 80
    rest = int.from_bytes(hashlib.sha256(f"{first}:{number}".encode()).digest()[:8]) >> 2
    return str(uuid.UUID(int=time_bits << 80 | 7 << 76 | number << 64 | 2 << 62 | rest))


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an id: a UUID in lower case with hyphens."""
    return _UUID.fullmatch(text) is not None
