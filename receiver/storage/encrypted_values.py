"""Every value that is stored encrypted: whether the present master keys read it, and encrypting it again.

The values are read in pages, in the order of their tables and keys, so that a caller can go on where it stopped.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field
from sqlalchemy import Column, ColumnElement, Connection, Select, Table, func, or_, select, update

from receiver.domain.keyring import KeyRing
from receiver.domain.rotation import live
from receiver.storage.tables import api_keys, idempotency_keys, provider_accounts, subscriptions
from receiver.storage.transaction import Transaction

Row = Mapping[str, Any]
ReadRows = Callable[[Select[Any]], Awaitable[list[dict[str, Any]]]]
"""Runs a query and returns its rows (`Database.read`)."""
RETIRED = "retired_secrets"
"""The one column that has a list of encrypted values instead of one."""
_CHECKED_ROWS = 1000
_SAMPLED = 1000
"""Values of each column that are tried: of the newest and of the oldest rows, for keys are replaced in that order."""


class Place(Struct, frozen=True):
    """A table with encrypted columns, and how many of its rows are read at a time: some have large values.

    Those of its columns that are `passing` are needed for a limited time: a value there that no key decrypts is no
    reason to refuse the database.
    """

    table: Table
    columns: tuple[str, ...]
    rows: int
    passing: tuple[str, ...] = ()

    @property
    def lasting(self) -> list[Column[Any]]:
        """The columns that are not `passing`."""
        return [self.table.c[name] for name in self.columns if name not in self.passing]

    @property
    def has_value(self) -> ColumnElement[bool]:
        """The condition of a row that has an encrypted value."""
        return or_(*(self.table.c[name].is_not(None) for name in self.columns))


_WEBHOOKS = Place(subscriptions, ("secret", "headers", RETIRED), 100, passing=(RETIRED,))
PLACES = (
    _WEBHOOKS,
    Place(api_keys, ("sealed",), 100),
    # Bodies of responses, each up to 128 KiB.
    Place(idempotency_keys, ("answer",), 20, passing=("answer",)),
    Place(provider_accounts, ("credentials",), 100),
)
"""Where values are stored encrypted: there is no other place. A cursor of the API has the number of one (0 to 3)."""


class Tally(Struct):
    """How many encrypted values were found: by the fingerprint of their key, and those that no key here decrypts."""

    by_key: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def add(self, key: str | None) -> None:
        """Count one value."""
        if key is None:
            self.unreadable += 1
        else:
            self.by_key[key] += 1


class Change(Struct, frozen=True):
    """Values of a row to be replaced, as long as they are still those that were read (`before`)."""

    place: Place
    key: int
    before: Row
    values: Row


def values_after(place: Place, after: int) -> Select[Any]:
    """Return the query for a place's next rows that have an encrypted value."""
    columns = [place.table.c[name] for name in place.columns]
    key = place.table.c.id
    return select(key, *columns).where(key > after, place.has_value).order_by(key).limit(place.rows)


async def count_rows(read: ReadRows) -> int:
    """Return how many rows have encrypted values."""
    total = 0
    for place in PLACES:
        query = select(func.count().label("rows")).select_from(place.table).where(place.has_value)
        total += (await read(query))[0]["rows"]
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
    """Return how many secrets and headers of webhooks, and credentials of accounts, no key decrypts.

    Those of what is removed do not count.
    """
    accounts = select(provider_accounts.c.credentials).where(provider_accounts.c.removed_at.is_(None))
    found = _unreadable((row["credentials"] for row in await read(accounts)), keyring)
    table, after = subscriptions.c, 0
    while True:
        query = select(table.id, *_WEBHOOKS.lasting).where(table.id > after, table.deleted_at.is_(None))
        rows = await read(query.order_by(table.id).limit(_CHECKED_ROWS))
        tokens = (row[column.name] for row in rows for column in _WEBHOOKS.lasting)
        found += _unreadable(tokens, keyring)
        if len(rows) < _CHECKED_ROWS:
            return found
        after = rows[-1]["id"]


def sample_unreadable(connection: Connection, keyring: KeyRing) -> tuple[int, int]:
    """Return how many of the values in all places no key decrypts, and how many were tried: see `_SAMPLED`."""
    tokens: set[str] = set()
    for column in (column for place in PLACES for column in place.lasting):
        key = column.table.c.id
        for order in (key.asc(), key.desc()):
            query = select(column).where(column.is_not(None)).order_by(order).limit(_SAMPLED)
            tokens.update(connection.execute(query).scalars())
    return _unreadable(tokens, keyring), len(tokens)


def _unreadable(tokens: Iterable[str | None], keyring: KeyRing) -> int:
    """Return how many values no key decrypts; None is no value."""
    return sum(token is not None and keyring.key_of(token) is None for token in tokens)


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
