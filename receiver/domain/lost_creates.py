"""Which entries of a provider's list are the tasks whose create calls got no answer. Pure functions.

An entry whose webhook URL names a task and its attempt is that task's. Without a webhook URL only the request itself
can tell: the model, the type and the input as it was sent. Creates with equal requests are then assigned one to one, in
the order of time, and only where that leaves no doubt:

- An entry can only be of a create that was under way when the entry was made: from the clocks' skew before the call
  began to the longest time that a call takes, and the skew, after that.
- Creates and entries that are connected by that are looked at together. If there are no more entries than creates, each
  entry belongs to one of them, and since their requests are equal it does not matter to which: the oldest entry goes to
  the oldest create, and so on. The creates that are left over stay unknown.
- If there are more entries than creates, another client of the same account has sent an equal request, and none of them
  is taken: tracking another client's work under this task would be worse than failing.
- While the call of one of the creates is under way, so that its outcome will be known, the entries that may be its own
  are left alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from msgspec import Struct

SKEW_SECONDS = 60.0
"""How far the provider's clock may be from ours."""
WIDE_SKEW_SECONDS = 75 * 60.0
"""The same before a create is given up: by an hour for a wrong time zone, and some minutes."""


class LostCreate(Struct, frozen=True, kw_only=True):
    """A create call without an answer. `request` is the digest of its request, `submitted_at` when the call began.

    `is_pending` says that its call is still under way, or that another process acts on it.
    """

    uid: str
    attempt: int
    request: bytes
    submitted_at: datetime
    submitted_until: datetime | None = None
    """The latest time at which the call may have begun; None if it is known when it did."""
    is_pending: bool = False


class ListedEntry(Struct, frozen=True, kw_only=True):
    """A task in the provider's list; `created_at` is None if the provider does not say it."""

    provider_task_id: str
    request: bytes
    created_at: datetime | None


def request_digest(model: str, task_type: str, given: Any) -> bytes:
    """Return a digest of a request that is the same for equal ones, whatever the order of their fields."""
    request = [model, task_type, _plain(given)]
    try:
        text = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # a number of more than 64 bits, say
        text = json.dumps(request, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()


def assign(lost: Sequence[LostCreate], entries: Sequence[ListedEntry], *, call_seconds: float) -> dict[str, str]:
    """Return which of these entries, none of which belongs to a task yet, are of which creates.

    The result has the provider's id by the task's. `call_seconds` is the longest time that a create call takes.
    """
    found: dict[str, str] = {}
    for request in {each.request for each in lost} & {each.request for each in entries}:
        creates = sorted((each for each in lost if each.request == request), key=lambda each: each.submitted_at)
        made = [each for each in entries if each.request == request]
        for some_creates, some_entries in _connected(creates, made, call_seconds):
            if len(some_entries) <= len(some_creates):
                found |= _in_order(some_creates, some_entries, call_seconds)
    return found


def _plain(value: Any) -> Any:
    """Return a JSON value in which equal numbers have one form: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _may_be(create: LostCreate, entry: ListedEntry, call_seconds: float) -> bool:
    """Return whether an entry was made while the call was under way."""
    if entry.created_at is None:
        return True
    skew = timedelta(seconds=SKEW_SECONDS)
    latest = (create.submitted_until or create.submitted_at) + timedelta(seconds=call_seconds) + skew
    return create.submitted_at - skew <= entry.created_at <= latest


def _connected(
    creates: Sequence[LostCreate], entries: Sequence[ListedEntry], call_seconds: float
) -> list[tuple[list[LostCreate], list[ListedEntry]]]:
    """Return the groups of creates and entries that may belong together, each group apart from all others."""
    groups: list[tuple[list[LostCreate], list[ListedEntry]]] = [([create], []) for create in creates]
    for entry in entries:
        joined: tuple[list[LostCreate], list[ListedEntry]] = ([], [entry])
        others = []
        for group in groups:
            if any(_may_be(create, entry, call_seconds) for create in group[0]):
                joined[0].extend(group[0])
                joined[1].extend(group[1])
            else:
                others.append(group)
        groups = [*others, joined] if joined[0] else others
    return groups


def _in_order(creates: Sequence[LostCreate], entries: Sequence[ListedEntry], call_seconds: float) -> dict[str, str]:
    """Assign each entry, the oldest first, to the oldest create that it may be of and that has none yet."""
    found: dict[str, str] = {}
    by_time = sorted(entries, key=lambda each: (each.created_at is None, each.created_at or datetime.max))
    left = sorted(creates, key=lambda each: each.submitted_at)
    for entry in by_time:
        fitting = [create for create in left if _may_be(create, entry, call_seconds)]
        if not fitting or any(create.is_pending for create in fitting):
            continue
        found[fitting[0].uid] = entry.provider_task_id
        left.remove(fitting[0])
    return found
