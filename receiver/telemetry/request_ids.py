"""The id of the request that is handled at present: log records, answers and events have it.

It is in a context variable, which costs little to set and is only read when something is written. What a request
starts and does not wait for keeps it.
"""

import re
from contextvars import ContextVar

from uuid_utils import uuid7

_GIVEN = re.compile(rb"[!-~]{1,128}")
"""What a proxy may give as an id: letters, digits and signs of ASCII, without blanks."""

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin_request(given: bytes | None = None) -> str:
    """Begin to handle a request in the present asyncio task; return its id: `given`, if it has the form of one.

    Else it is a new one, in the form of Pi's ids.
    """
    request_id = given.decode() if given and _GIVEN.fullmatch(given) else f"req_pi_{uuid7()}"
    _current.set(request_id)
    return request_id


def current_request_id() -> str | None:
    """Return the id of the request that is handled at present, or that started what is done; None if none did."""
    return _current.get()


def ensure_request_id() -> str:
    """Return the id of the request that is handled at present; begin one if a server did not."""
    return _current.get() or begin_request()
