"""Idempotency keys: claimed before the work, with a lease; the answer is kept in the same row.

Several are claimed, or kept, in one statement each: they are handlers of the writer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress
from operator import itemgetter
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, insert, select, update

from receiver.errors import Conflict
from receiver.storage.tables import idempotency_keys as keys
from receiver.storage.transaction import Transaction

KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """A request that is to be answered under its key, by the process `owner`."""

    scope: str
    body: str
    resource_id: str
    """What the claim's `resource_id` is to be, if this is the key's first request."""
    owner: str
    now: datetime
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do a key's work, until its lease ends.

    `is_resumed` says that somebody had it before and left no answer: what `resource_id` names may be there already.
    """

    scope: str
    resource_id: str
    is_resumed: bool


@dataclass(frozen=True, slots=True)
class SavedResponse:
    """A key's answer; `answer` is the body, encrypted."""

    body: str
    status: int
    content_type: str
    answer: str


@dataclass(frozen=True, slots=True)
class ClaimedElsewhere:
    """Another process does the key's work."""


ClaimResult = Claim | SavedResponse | ClaimedElsewhere
"""What a request finds under its key."""


@dataclass(frozen=True, slots=True)
class ResponseToSave:
    """An answer to be kept under a claim of the process `owner`."""

    scope: str
    owner: str
    kept: SavedResponse


def mismatch() -> Conflict:
    """Return the refusal of another body under a key that was used already."""
    return Conflict(
        "this key was used here within 24 hours for a request with another body: take a new key for another request",
        code="idempotency_key_mismatch",
        param="Idempotency-Key",
    )


async def claim(tx: Transaction, wanted: Sequence[ClaimRequest]) -> list[ClaimResult | Exception]:
    """Claim keys, or find what became of them; each scope at most once. A second body is a `Conflict`.

    Two processes that insert one key at once: the later finds it there when its batch is tried again. All insert in
    one order, so that none of them waits for another that waits for it.
    """
    lock = select(keys).where(keys.c.scope.in_([each.scope for each in wanted])).order_by(keys.c.id)
    known = {row.scope: row for row in await tx.execute(lock.with_for_update())}
    if new := [_row(each) for each in wanted if each.scope not in known]:
        await tx.execute(insert(keys), sorted(new, key=itemgetter("scope")))
    return [await _take(tx, known[each.scope], each) if each.scope in known else _first(each) for each in wanted]


async def keep(tx: Transaction, answers: Sequence[ResponseToSave]) -> list[bool]:
    """Keep answers; False for one whose claim another process has taken over."""
    open_keys = and_(keys.c.scope.in_([each.scope for each in answers]), keys.c.status.is_(None))
    lock = select(keys.c.scope, keys.c.owner).where(open_keys).order_by(keys.c.id).with_for_update()
    owners = {row.scope: row.owner for row in await tx.execute(lock)}
    is_held = [owners.get(each.scope) == each.owner for each in answers]
    if held := list(compress(answers, is_held)):
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("status", "content_type", "answer")}
        await tx.execute(
            update(keys).where(keys.c.scope == bindparam("of_scope")).values(**values), [_kept(each) for each in held]
        )
    return is_held


async def move_lease(tx: Transaction, scope: str, owner: str, until: datetime) -> None:
    """Move the end of a lease, to now in order to give the claim back; does nothing where it is another's by now."""
    mine = and_(keys.c.scope == scope, keys.c.owner == owner, keys.c.status.is_(None))
    await tx.execute(update(keys).where(mine).values(lease_until=until))


def leased(scope: str, now: datetime) -> Select[Any]:
    """Return the query that finds a key while somebody does its work."""
    return select(keys.c.id).where(keys.c.scope == scope, keys.c.status.is_(None), keys.c.lease_until > now)


async def _take(tx: Transaction, row: Row[Any], wanted: ClaimRequest) -> ClaimResult | Exception:
    is_held = row.status is None and row.owner != wanted.owner and row.lease_until > wanted.now
    if row.created_at <= wanted.now - KEPT and not is_held:
        await tx.execute(update(keys).where(keys.c.id == row.id).values(**_row(wanted)))
        return _first(wanted)
    if row.body != wanted.body:
        return mismatch()
    if row.status is not None:
        return SavedResponse(row.body, row.status, row.content_type, row.answer)
    if is_held:
        return ClaimedElsewhere()
    taken = {"owner": wanted.owner, "lease_until": wanted.lease_until}
    await tx.execute(update(keys).where(keys.c.id == row.id).values(**taken))
    return Claim(row.scope, row.resource_id, is_resumed=True)


def _first(wanted: ClaimRequest) -> Claim:
    return Claim(wanted.scope, wanted.resource_id, is_resumed=False)


def _row(wanted: ClaimRequest) -> dict[str, Any]:
    return {
        "scope": wanted.scope,
        "body": wanted.body,
        "resource_id": wanted.resource_id,
        "owner": wanted.owner,
        "lease_until": wanted.lease_until,
        "status": None,
        "content_type": None,
        "answer": None,
        "created_at": wanted.now,
    }


def _kept(answer: ResponseToSave) -> dict[str, Any]:
    kept = answer.kept
    return {
        "of_scope": answer.scope,
        "new_status": kept.status,
        "new_content_type": kept.content_type,
        "new_answer": kept.answer,
    }
