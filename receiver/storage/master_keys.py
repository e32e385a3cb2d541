"""Which master keys are in use, and every value that is stored encrypted: by which key it is, and encrypting it again.

The values are read in pages, in the order of their tables and keys, so that a caller can go on where it stopped.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, delete, func, insert, or_, select, update

from models import TERMINAL
from models.tasks import IS_SENT_AND_DUE
from receiver.domain.keyring import KeyRing
from receiver.domain.rotation import live
from receiver.storage.tables import api_keys, idempotency_keys, master_keys, subscriptions, tasks
from receiver.storage.transaction import Transaction

Row = Mapping[str, Any]
ReadRows = Callable[[Select[Any]], Awaitable[list[dict[str, Any]]]]
"""Runs a query and returns its rows (`Database.read`)."""
RETIRED = "retired_secrets"
"""The one column that has a list of encrypted values instead of one."""
_CHECKED_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """A table with encrypted columns, and how many of its rows are read at a time: some have large values."""

    table: Table
    columns: tuple[str, ...]
    rows: int


PLACES = (
    Place(subscriptions, ("secret", "headers", RETIRED), 100),
    Place(api_keys, ("sealed",), 100),
    # Bodies of responses, each up to 128 KiB.
    Place(idempotency_keys, ("answer",), 20),
)
"""Where values are stored encrypted: there is no other place."""


@dataclass(slots=True)
class Tally:
    """How many encrypted values were found: by the fingerprint of their key, and those that no key here decrypts."""

    by_key: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def add(self, key: str | None) -> None:
        """Count one value."""
        if key is None:
            self.unreadable += 1
        else:
            self.by_key[key] += 1


@dataclass(frozen=True, slots=True)
class Change:
    """Values of a row to be replaced, as long as they are still those that were read (`before`)."""

    place: Place
    key: int
    before: Row
    values: Row


def values_after(place: Place, after: int) -> Select[Any]:
    """Return the query for a place's next rows that have an encrypted value."""
    columns = [place.table.c[name] for name in place.columns]
    has_value = or_(*(column.is_not(None) for column in columns))
    key = place.table.c.id
    return select(key, *columns).where(key > after, has_value).order_by(key).limit(place.rows)


async def count_rows(read: ReadRows) -> int:
    """Return how many rows have encrypted values."""
    total = 0
    for place in PLACES:
        has_value = or_(*(place.table.c[name].is_not(None) for name in place.columns))
        total += (await read(select(func.count().label("rows")).select_from(place.table).where(has_value)))[0]["rows"]
    return total


def examine(place: Place, rows: Iterable[Row], keyring: KeyRing, now: datetime) -> tuple[Tally, list[Change]]:
    """Return by which keys the values of rows are encrypted, and the changes that encrypt them with the newest key.

    A replaced secret that does not sign any more is dropped by its change.
    """
    tally, changes = Tally(), []
    for row in rows:
        values: dict[str, Any] = {}
        for name in place.columns:
            new = (
                _newest_of_list(row[name], keyring, now, tally)
                if name == RETIRED
                else _newest(row[name], keyring, tally)
            )
            if new != row[name]:
                values[name] = new
        if values:
            changes.append(Change(place, row["id"], row, values))
    return tally, changes


async def apply_changes(tx: Transaction, changes: Iterable[Change]) -> None:
    """Write changes. A row that another request has changed since it was read stays as it is."""
    for change in changes:
        table = change.place.table
        # A list of replaced secrets changes together with the secret, so that needs no comparison of documents.
        same = [
            table.c[name].is_not_distinct_from(change.before[name]) for name in change.place.columns if name != RETIRED
        ]
        await tx.execute(update(table).where(table.c.id == change.key, *same).values(**change.values))


async def count_unreadable(read: ReadRows, keyring: KeyRing) -> int:
    """Return how many secrets and headers of webhooks that are not removed no key decrypts."""
    table, found, after = subscriptions.c, 0, 0
    while True:
        query = select(table.id, table.secret, table.headers).where(table.id > after, table.deleted_at.is_(None))
        rows = await read(query.order_by(table.id).limit(_CHECKED_ROWS))
        for row in rows:
            tokens = (token for token in (row["secret"], row["headers"]) if token is not None)
            found += sum(keyring.key_of(token) is None for token in tokens)
        if len(rows) < _CHECKED_ROWS:
            return found
        after = rows[-1]["id"]


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


def _newest(token: str | None, keyring: KeyRing, tally: Tally) -> str | None:
    """Return a value encrypted with the newest key; as it is if it is that already, or if no key decrypts it."""
    if token is None:
        return None
    key = keyring.key_of(token)
    tally.add(key)
    return token if key in (None, keyring.newest) else keyring.encrypt(keyring.decrypt(token))


def _newest_of_list(retired: Any, keyring: KeyRing, now: datetime, tally: Tally) -> Any:
    if not retired:
        return retired
    kept = [{**each, "secret": _newest(each["secret"], keyring, tally)} for each in live(retired, now)]
    return retired if kept == retired else kept or None
