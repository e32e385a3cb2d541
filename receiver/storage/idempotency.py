"""Idempotency keys: claimed with a lease before a request's work begins; the response is saved in the same row.

`receiver.api.idempotency` has the rules. Why the claim comes first, with an id: if a process dies during the work, or
its response is lost, the client repeats the request, and whatever was created must be found and not created twice. So
the row that claims the key also holds the id of what the work creates (`resource_id`), chosen beforehand. A process
that takes the key over gets that id with `is_resumed`, and looks whether it exists before it creates it.

A request that changes what exists already creates nothing with that id. It binds its claim to the state that it found
(`found_state`, `bind`) before its work begins: a request that is resumed compares it with the present state.

`claim` and `keep` are handlers of the writer: each handles any number of keys with a few statements.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import compress
from operator import itemgetter
from typing import Any

from msgspec import Struct
from sqlalchemy import Row, Select, and_, bindparam, func, insert, select, update

from receiver.errors import Conflict, RingbackError
from receiver.storage.optimistic import stands_alone
from receiver.storage.tables import idempotency_keys as keys
from receiver.storage.transaction import Transaction

KEPT = timedelta(hours=24)
"""How long a key is valid, from its first use."""


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """A request under an idempotency key, whose work the process `owner` wants to do."""

    scope: str
    body: str
    resource_id: str
    """The id for what the request creates, if this is the key's first request."""
    owner: str
    now: datetime
    lease_until: datetime
    organization_id: int
    refusal: RingbackError | None = None
    """Why a key that is new may not be claimed; None if it may."""


class Claim(Struct, frozen=True):
    """The right to do the work of a key's request, until the lease ends.

    `is_resumed` is true if the key was claimed before and has no response: the resource may exist already.
    `found_state` is what the claim was bound to before; None if it was not, so that no work can have been done.
    `was_elsewhere` is true if another process had the claim: a transaction of its may be under way still.
    """

    scope: str
    resource_id: str
    is_resumed: bool
    found_state: str | None = None
    was_elsewhere: bool = False


class SavedResponse(Struct, frozen=True):
    """The response to a key's request: `body` is the hash of the request's body, `answer` the response's, encrypted."""

    body: str
    status: int
    content_type: str
    answer: str


class ClaimedElsewhere(Struct, frozen=True):
    """Another process is doing the work of the key's request."""


ClaimResult = Claim | SavedResponse | ClaimedElsewhere
"""The state of a key that a request finds."""


class ResponseToSave(Struct, frozen=True):
    """A response to save under the claim of the process `owner`."""

    scope: str
    owner: str
    kept: SavedResponse


def mismatch() -> Conflict:
    """Return the error for another body under a key that is in use."""
    return Conflict(
        "this key was used within 24 hours for a request with another body; use a new key for a new request",
        code="idempotency_key_mismatch",
        param="Idempotency-Key",
    )


@stands_alone
async def claim(tx: Transaction, wanted: Sequence[ClaimRequest]) -> list[ClaimResult | Exception]:
    """Claim keys, or return their state. Each scope may be given once. For another body the result is a `Conflict`,
    for a new key with a `refusal` that.

    If two processes insert the same key at the same time, the second one's batch fails on the unique scope; the writer
    tries it again, and then it finds the row. Rows are inserted in the order of their scopes, so that two processes
    that insert several of the same keys cannot deadlock.
    """
    rows = [_row(each) for each in wanted]
    if not any(each.refusal for each in wanted) and await tx.claim_new_keys(rows):
        return [_new_claim(each) for each in wanted]
    lock = select(keys).where(keys.c.scope.in_([each.scope for each in wanted])).order_by(keys.c.id)
    known = {row.scope: row for row in await tx.execute(lock.with_for_update())}
    pairs = zip(wanted, rows, strict=True)
    if new := [row for each, row in pairs if each.scope not in known and each.refusal is None]:
        await tx.execute(insert(keys), sorted(new, key=itemgetter("scope")))
    one = wanted[0]
    is_ours = and_(keys.c.scope == one.scope, keys.c.owner == one.owner, keys.c.lease_until == one.lease_until)
    tx.leaves(lambda: select(keys.c.id).where(is_ours))
    return [
        await _claim_again(tx, known[each.scope], each) if each.scope in known else _new_claim(each) for each in wanted
    ]


@stands_alone
async def keep(tx: Transaction, answers: Sequence[ResponseToSave]) -> list[bool]:
    """Save responses; the result is False for one whose claim another process has taken over."""
    rows = [_answer(each) for each in answers]
    if await tx.save_answers(rows):
        return [True] * len(answers)
    open_keys = and_(keys.c.scope.in_([each.scope for each in answers]), keys.c.status.is_(None))
    lock = select(keys.c.scope, keys.c.owner).where(open_keys).order_by(keys.c.id).with_for_update()
    owners = {row.scope: row.owner for row in await tx.execute(lock)}
    is_held = [owners.get(each.scope) == each.owner for each in answers]
    if held := list(compress(rows, is_held)):
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("status", "content_type", "answer")}
        await tx.execute(
            update(keys).where(keys.c.scope == bindparam("new_scope")).values(**values),
            [{f"new_{name}": value for name, value in row.items() if name != "owner"} for row in held],
        )
    return is_held


async def bind(tx: Transaction, scope: str, owner: str, state: str) -> bool:
    """Bind a claim to the state that its request found, once. Return False if another process has taken it over."""
    is_held = and_(keys.c.scope == scope, keys.c.owner == owner, keys.c.status.is_(None))
    first = func.coalesce(keys.c.found_state, state)
    return bool(await tx.execute(update(keys).where(is_held).values(found_state=first).returning(keys.c.id)))


async def move_lease(tx: Transaction, scope: str, owner: str, until: datetime) -> None:
    """Set the end of a lease; now gives the claim back. Does nothing if another process has taken it over."""
    is_held = and_(keys.c.scope == scope, keys.c.owner == owner, keys.c.status.is_(None))
    await tx.execute(update(keys).where(is_held).values(lease_until=until))


def leased(scope: str, now: datetime) -> Select[Any]:
    """Return the query that finds a key while a process does the work of its request."""
    return select(keys.c.id).where(keys.c.scope == scope, keys.c.status.is_(None), keys.c.lease_until > now)


async def _claim_again(tx: Transaction, row: Row[Any], wanted: ClaimRequest) -> ClaimResult | Exception:
    is_held = row.status is None and row.owner != wanted.owner and row.lease_until > wanted.now
    if row.created_at <= wanted.now - KEPT and not is_held:
        if wanted.refusal is None:
            await tx.execute(update(keys).where(keys.c.id == row.id).values(**_row(wanted)))
        return _new_claim(wanted)
    if row.body != wanted.body:
        return mismatch()
    if row.status is not None:
        return SavedResponse(row.body, row.status, row.content_type, row.answer)
    if is_held:
        return ClaimedElsewhere()
    lease = {"owner": wanted.owner, "lease_until": wanted.lease_until}
    await tx.execute(update(keys).where(keys.c.id == row.id).values(**lease))
    was_elsewhere = row.owner != wanted.owner
    return Claim(row.scope, row.resource_id, is_resumed=True, found_state=row.found_state, was_elsewhere=was_elsewhere)


def _new_claim(wanted: ClaimRequest) -> Claim | Exception:
    return wanted.refusal or Claim(wanted.scope, wanted.resource_id, is_resumed=False)


def _row(wanted: ClaimRequest) -> dict[str, Any]:
    return {
        "scope": wanted.scope,
        "organization_id": wanted.organization_id,
        "body": wanted.body,
        "resource_id": wanted.resource_id,
        "found_state": None,
        "owner": wanted.owner,
        "lease_until": wanted.lease_until,
        "status": None,
        "content_type": None,
        "answer": None,
        "created_at": wanted.now,
    }


def _answer(given: ResponseToSave) -> dict[str, Any]:
    kept = given.kept
    return {
        "scope": given.scope,
        "owner": given.owner,
        "status": kept.status,
        "content_type": kept.content_type,
        "answer": kept.answer,
    }
