"""Which master keys processes were started with, and the tasks under way that an earlier one still verifies."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update

from models import TERMINAL
from models.conditions import IS_SENT_AND_DUE
from receiver.domain.keyring import KeyRing
from receiver.storage.tables import master_keys, tasks
from receiver.storage.transaction import Transaction


def recorded_keys() -> Select[Any]:
    """Return the query for the master keys that processes were started with, oldest first."""
    return select(master_keys).order_by(master_keys.c.id)


async def record_keys(tx: Transaction, keyring: KeyRing, forgotten: Iterable[str], now: datetime) -> None:
    """Record the keys of a process that starts, and which of them is the newest; delete those that are `forgotten`."""
    await tx.execute(delete(master_keys).where(master_keys.c.fingerprint.in_(tuple(forgotten))))
    known = {row.fingerprint: row.newest_since for row in await tx.execute(recorded_keys())}
    if new := [name for name in keyring.fingerprints if name not in known]:
        await tx.execute(
            insert(master_keys), [{"fingerprint": name, "newest_since": None, "created_at": now} for name in new]
        )
    since = known.get(keyring.newest)
    if since is None or any(other is not None and other > since for other in known.values()):
        is_newest = master_keys.c.fingerprint == keyring.newest
        await tx.execute(update(master_keys).where(is_newest).values(newest_since=now))


def tasks_sent_before(moment: datetime) -> Select[Any]:
    """Return the query for how many tasks under way were sent before a time (`count`), and their last news (`news`)."""
    under_way = (IS_SENT_AND_DUE, tasks.c.status.not_in(TERMINAL), tasks.c.submitted_at < moment)
    columns: list[ColumnElement[Any]] = [func.count().label("count"), func.max(tasks.c.last_update_at).label("news")]
    return select(*columns).where(*under_way)
