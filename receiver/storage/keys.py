"""API keys."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, insert, or_, select, update

from models import Scope
from receiver.domain.audit_values import key_difference
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing, MasterKeyMissing, hash_api_key, new_api_key
from receiver.storage.audit import SERVICE, Actor, audit
from receiver.storage.organizations import DEFAULT_ORGANIZATION, ensure_organization
from receiver.storage.tables import api_keys, organizations
from receiver.storage.transaction import Transaction
from receiver.telemetry.log import get_logger

log = get_logger("storage.keys")

_HINT_LENGTH = 7
SETTING = "RINGBACK_API_KEY"
"""The name of the key that comes from the setting of this name."""
_FIRST = "first admin key"
"""The name of the key that a start creates if there is none."""


class KeyUse(Struct, frozen=True):
    """Keys that were used at about this time."""

    key_ids: Sequence[int]
    at: datetime


def key_row(
    organization_id: int,
    key: str,
    name: str,
    scope: str,
    now: datetime,
    *,
    uid: str | None = None,
    rate_limit: float | None = None,
    expires_at: datetime | None = None,
) -> dict[str, Any]:
    """Return the row of a new key, which has the key's hash and its first characters, but not the key."""
    return {
        "uid": uid or new_id(),
        "organization_id": organization_id,
        "name": name,
        "scope": scope,
        "hash": hash_api_key(key),
        "hint": key[:_HINT_LENGTH],
        "rate_limit": rate_limit,
        "expires_at": expires_at,
        "created_at": now,
    }


async def insert_key(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Insert one key."""
    await tx.execute(insert(api_keys), [values])
    tx.leaves(lambda: select(api_keys.c.id).where(api_keys.c.uid == values["uid"]), is_lasting=True)


async def insert_key_again(tx: Transaction, values: Mapping[str, Any]) -> bool:
    """Insert a key whose request is repeated: it may exist, with a secret that no client received.

    An existing key gets the secret of `values`. Return False, without a change, if it was revoked since.
    """
    is_same = api_keys.c.uid == values["uid"]
    found = await tx.execute(select(api_keys.c.revoked_at).where(is_same).with_for_update())
    if not found:
        await insert_key(tx, values)
    elif found[0].revoked_at is None:
        await tx.execute(update(api_keys).where(is_same).values(hash=values["hash"], hint=values["hint"]))
    return not found or found[0].revoked_at is None


async def revoke_key(tx: Transaction, organization_id: int, uid: str, now: datetime) -> dict[str, Any] | None:
    """Revoke one of the organization's live keys; return its row, None if there was none."""
    is_live = (api_keys.c.organization_id == organization_id, api_keys.c.uid == uid, api_keys.c.revoked_at.is_(None))
    change = update(api_keys).where(*is_live).values(revoked_at=now, sealed=None)
    revoked = await tx.execute(change.returning(*api_keys.c))
    return dict(revoked[0]._mapping) if revoked else None


async def forget_sealed(tx: Transaction, key_id: int) -> None:
    """Delete the encrypted copy of a first key: it was used, so somebody has it."""
    await tx.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.sealed.is_not(None)).values(sealed=None)
    )


async def replace_key(tx: Transaction, values: Mapping[str, Any], now: datetime, by: Actor) -> None:
    """Make this the only live key of its name: revoke the others, and insert it, or restore it if it was revoked."""
    others = (
        api_keys.c.organization_id == values["organization_id"],
        api_keys.c.name == values["name"],
        api_keys.c.hash != values["hash"],
    )
    replaced = update(api_keys).where(*others, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    for row in await tx.execute(replaced.returning(*api_keys.c)):
        await audit(tx, by, "key.revoke", row.uid, key_difference(dict(row._mapping), None))
    known = await tx.execute(select(api_keys).where(api_keys.c.hash == values["hash"]))
    if known:
        restored = {"revoked_at": None, "sealed": None}
        await tx.execute(update(api_keys).where(api_keys.c.hash == values["hash"]).values(restored))
        if known[0].revoked_at is not None:
            await audit(tx, by, "key.restore", known[0].uid, key_difference(None, dict(known[0]._mapping)))
    else:
        await insert_key(tx, values)
        await audit(tx, by, "key.create", values["uid"], key_difference(None, values))


_WITH_ORGANIZATION = (
    select(api_keys, organizations.c.uid.label("organization_uid"))
    .join(organizations, organizations.c.id == api_keys.c.organization_id)
    .where(api_keys.c.revoked_at.is_(None))
)


def live_key(hashed: str) -> Select[Any]:
    """Return the query for the key with this hash that is not revoked, with its organization's id.

    It is `organization_uid`. The key may have expired.
    """
    return _WITH_ORGANIZATION.where(api_keys.c.hash == hashed)


def live_key_by_uid(uid: str) -> Select[Any]:
    """Return the query for the same row of the key with this id, of any organization."""
    return _WITH_ORGANIZATION.where(api_keys.c.uid == uid)


def live_hashes(limit: int) -> Select[Any]:
    """Return the query for the hashes of all live keys, as `hash`, at most `limit` of them."""
    return select(api_keys.c.hash).where(api_keys.c.revoked_at.is_(None)).limit(limit)


def live_keys(organization_id: int, limit: int, before: int | None = None) -> Select[Any]:
    """Return the query for a page of an organization's live keys, newest first."""
    query = (
        select(api_keys)
        .where(api_keys.c.organization_id == organization_id, api_keys.c.revoked_at.is_(None))
        .order_by(api_keys.c.id.desc())
        .limit(limit)
    )
    return query if before is None else query.where(api_keys.c.id < before)


def live_key_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one of an organization's live keys."""
    is_it = (api_keys.c.organization_id == organization_id, api_keys.c.uid == uid, api_keys.c.revoked_at.is_(None))
    return select(api_keys).where(*is_it)


def key_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for the row key of one of an organization's keys, also of a revoked one."""
    return select(api_keys.c.id).where(api_keys.c.organization_id == organization_id, api_keys.c.uid == uid)


def keys_in_use(key_ids: Collection[int]) -> Select[Any]:
    """Return the query for (id, hash, expires_at, last_used_at) of those of these keys that are not revoked."""
    table = api_keys.c
    wanted = (table.id.in_(key_ids), table.revoked_at.is_(None))
    return select(table.id, table.hash, table.expires_at, table.last_used_at).where(*wanted)


async def store_uses(tx: Transaction, uses: Sequence[KeyUse]) -> list[None]:
    """Store when keys were last used. A row that another process is writing is left to it."""
    table = api_keys.c
    for use in uses:
        is_older = or_(table.last_used_at.is_(None), table.last_used_at < use.at)
        stale = select(table.id).where(table.id.in_(use.key_ids), is_older)
        locked = stale.order_by(table.id).with_for_update(skip_locked=True, key_share=True)
        await tx.execute(update(api_keys).where(table.id.in_(locked)).values(last_used_at=use.at))
    return [None] * len(uses)


def _live_admin_key(now: datetime) -> Select[Any]:
    """Return the query for one admin key of any organization that is neither revoked nor expired."""
    table = api_keys.c
    is_live = (table.revoked_at.is_(None), or_(table.expires_at.is_(None), table.expires_at > now))
    return select(table.id).where(table.scope == Scope.ADMIN, *is_live).limit(1)


async def ensure_admin_key(tx: Transaction, admin_key: str | None, now: datetime, keyring: KeyRing) -> str | None:
    """Ensure that the default organization and an admin key exist: `admin_key`, or a new one if there is none.

    Return the first admin key if it was made just now, or by an earlier start and never used: that start may have been
    killed before it showed it. Until its first use it is in its row encrypted by `keyring`.
    """
    # The organization's row stays locked, so that of several processes that start at once only one creates the key.
    organization_id = await ensure_organization(tx, DEFAULT_ORGANIZATION, now)
    if admin_key is not None:
        row = key_row(organization_id, admin_key, SETTING, Scope.ADMIN, now)
        await replace_key(tx, row, now, Actor(organization_id, f"setting {SETTING}"))
        return None
    if await tx.execute(_live_admin_key(now)):
        return await _unused_key(tx, keyring)
    key = new_api_key()
    row = key_row(organization_id, key, _FIRST, Scope.ADMIN, now)
    await insert_key(tx, {**row, "sealed": keyring.encrypt(key)})
    await audit(tx, Actor(organization_id, SERVICE), "key.create", row["uid"], key_difference(None, row))
    return key


async def _unused_key(tx: Transaction, keyring: KeyRing) -> str | None:
    """Return the first admin key if it is live and was never used, and if a master key decrypts it."""
    is_unused = (api_keys.c.sealed.is_not(None), api_keys.c.revoked_at.is_(None))
    found = await tx.execute(select(api_keys.c.sealed).where(*is_unused).order_by(api_keys.c.id.desc()).limit(1))
    try:
        return keyring.decrypt(found[0].sealed) if found else None
    except MasterKeyMissing:
        log.warning(
            "first admin key not shown",
            advice="it was never used, and the master key that encrypted it is gone: set RINGBACK_API_KEY to a key of "
            "your own, or put that master key back at the front of RINGBACK_SECRET_KEY",
        )
        return None
