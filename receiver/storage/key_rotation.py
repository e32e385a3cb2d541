"""Rotation of the master key: what is encrypted is encrypted again with the newest key, a page of rows at a time.

A page knows nothing of the one before, so the work may stop at any time, go on in another process, and be done twice.
"""

from datetime import datetime, timedelta

from msgspec import Struct

from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.large_bodies import read_apart
from receiver.storage.audit import Actor, audit
from receiver.storage.database import Database
from receiver.storage.encrypted_values import PLACES, Change, Tally, apply_changes, count_rows, examine, values_after
from receiver.storage.master_keys import recorded_keys, tasks_sent_before
from receiver.storage.transaction import Transaction

ROLL_OUT = timedelta(minutes=15)
"""How long after the first start with a new key other processes may still send tasks with the key before."""

Position = tuple[int, int]
"""How far a rotation is: the number of the place in `PLACES`, and the row key that was looked at last."""


class SentTasks(Struct, frozen=True):
    """Tasks under way whose webhooks are verified by an earlier key, and when the last of them has ended (`until`).

    One may end later if the provider reports progress of it. `until` is None if there are no such tasks.
    """

    count: int
    until: datetime | None


class KnownKey(Struct, frozen=True):
    """A master key: `is_here` tells whether this process has it, `newest_since` since when it signs and encrypts."""

    fingerprint: str
    is_here: bool
    is_newest: bool
    newest_since: datetime | None


class KeyStatus(Struct, frozen=True):
    """The keys in use, oldest first, how many rows have encrypted values, and the tasks that need an earlier key."""

    keys: list[KnownKey]
    rows: int
    tasks: SentTasks


class RotatedPage(Struct, frozen=True):
    """What was found on a page of `rows`, before its change, and where the next one begins; None after the last."""

    rows: int
    tally: Tally
    following: Position | None


class KeyRotation:
    """Tells which keys are in use, and encrypts what is stored with the newest one."""

    def __init__(self, database: Database, keyring: KeyRing, *, timeout_seconds: float) -> None:
        self.newest = keyring.newest
        """The fingerprint of the key that signs and encrypts."""
        self._database = database
        self._keyring = keyring
        self._patience = timedelta(seconds=timeout_seconds)

    async def status(self) -> KeyStatus:
        """Return what is known of the keys. Raises `StorageUnavailable`."""
        rows = await self._database.read(recorded_keys())
        since = {row["fingerprint"]: row["newest_since"] for row in rows}
        names = [*(name for name in since if name not in self._keyring.fingerprints), *self._keyring.fingerprints]
        keys = [
            KnownKey(name, name in self._keyring.fingerprints, name == self._keyring.newest, since.get(name))
            for name in names
        ]
        moment = since.get(self._keyring.newest)
        sent = SentTasks(0, None)
        if len(names) > 1 and moment is not None:
            sent = await sent_with_an_earlier_key(self._database, moment, self._patience)
        return KeyStatus(keys, await count_rows(self._database.read), sent)

    async def page(self, position: Position, actor: Actor | None, *, dry_run: bool) -> RotatedPage:
        """Encrypt the values of the next page with the newest key; with `dry_run` only look at them.

        `actor` is who began the rotation, for the audit log; None for a page that is not the first. Raises
        `Unavailable`.
        """
        number, after = position
        place = PLACES[number]
        rows = await self._database.read(values_after(place, after))
        now = utc_now()
        tally, changes = await read_apart(lambda: examine(place, rows, self._keyring, now))
        if not dry_run and (changes or actor is not None):
            await self._write(changes, actor)
        if len(rows) == place.rows:
            following: Position | None = (number, rows[-1]["id"])
        else:
            following = (number + 1, 0) if number + 1 < len(PLACES) else None
        return RotatedPage(len(rows), tally, following)

    async def _write(self, changes: list[Change], actor: Actor | None) -> None:
        async def work(tx: Transaction) -> None:
            if actor is not None:
                await audit(tx, actor, "master_key.rotate", None, (None, {"fingerprint": self._keyring.newest}))
            await apply_changes(tx, changes)

        await self._database.writer.run(work, items=max(1, len(changes)))


async def sent_with_an_earlier_key(database: Database, newest_since: datetime, patience: timedelta) -> SentTasks:
    """Return the tasks under way that were sent before a key became the newest: their webhooks need the one before.

    `patience` is how long a task may be without news before it fails.
    """
    found = (await database.read(tasks_sent_before(newest_since + ROLL_OUT)))[0]
    return SentTasks(found["count"], found["news"] + patience if found["news"] is not None else None)
