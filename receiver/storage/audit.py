"""The audit log: who changed what. An entry is written in the transaction of the change itself.

So nothing is changed without its entry, and no entry tells of a change that was not committed. What creates and moves
tasks and runs is not here: that is in their events.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, delete, insert, select

from receiver.clock import utc_now
from receiver.domain.audit_values import Difference
from receiver.domain.ids import new_id
from receiver.storage.page_filter import PageFilter
from receiver.storage.tables import api_keys, audit_entries
from receiver.storage.transaction import Transaction
from receiver.telemetry.log import get_logger

log = get_logger("storage.audit")

SERVICE = "ringback"
"""The actor of what the service does by itself."""
_MOST_CHARACTERS = 300
_NOTHING: Difference = (None, None)


class Actor(Struct, frozen=True):
    """Who makes a change; `organization_id` is the row key of the organization whose log has it.

    `key_id` is the row key of the API key, and `key_uid` its id.
    """

    organization_id: int
    name: str
    key_id: int | None = None
    address: str | None = None
    request_id: str | None = None
    key_uid: str | None = None


class AuditFilter(PageFilter, frozen=True, kw_only=True):
    """Which entries to list; None does not filter."""

    action: str | None = None
    target: str | None = None
    api_key_id: int | None = None


async def audit(
    tx: Transaction, actor: Actor, action: str, target: str | None, difference: Difference = _NOTHING
) -> None:
    """Write that `actor` did `action` (`<thing>.<verb>`) to the thing with the id `target`.

    `difference` has its changed fields before and after (`receiver.domain.audit_values`), without secrets.
    """
    before, after = difference
    row = {
        "uid": new_id(),
        "organization_id": actor.organization_id,
        "api_key_id": actor.key_id,
        "actor": actor.name[:_MOST_CHARACTERS],
        "address": actor.address,
        "request_id": actor.request_id,
        "action": action,
        "target": target,
        "before": before,
        "after": after,
        "created_at": utc_now(),
    }
    await tx.execute(insert(audit_entries), [row])
    tx.after_commit.append(partial(_log, actor, action, target))
    tx.leaves(lambda: select(audit_entries.c.id).where(audit_entries.c.uid == row["uid"]), is_lasting=True)


def _log(actor: Actor, action: str, target: str | None) -> None:
    # A key has a name that its organization chose, which is for its own audit log; here its id says which one it was.
    known = {
        "actor": actor.name if actor.key_id is None else None,
        "key_id": actor.key_uid,
        "address": actor.address,
        "request_id": actor.request_id,
    }
    log.info(
        "audit entry",
        action=action,
        target=target,
        **{name: value for name, value in known.items() if value is not None},
    )


def audit_entries_matching(wanted: AuditFilter, limit: int) -> Select[Any]:
    """Return the query for a page of entries, newest first, each with its key's id as `key_uid`."""
    equal: Mapping[str, object] = {
        "action": wanted.action,
        "target": wanted.target,
        "api_key_id": wanted.api_key_id,
    }
    return (
        select(audit_entries, api_keys.c.uid.label("key_uid"))
        .outerjoin(api_keys, api_keys.c.id == audit_entries.c.api_key_id)
        .where(*wanted.conditions(audit_entries, **equal))
        .order_by(audit_entries.c.id.desc())
        .limit(limit)
    )


def old_audit_entries(before: datetime, limit: int) -> Select[Any]:
    """Return the query for entries that were written before a time."""
    created_at = audit_entries.c.created_at
    return select(audit_entries.c.id).where(created_at < before).order_by(created_at).limit(limit)


async def purge_audit_entries(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete these entries; return how many."""
    await tx.execute(delete(audit_entries).where(audit_entries.c.id.in_(keys)))
    return len(keys)
