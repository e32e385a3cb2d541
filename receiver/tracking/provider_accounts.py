"""Accounts at providers: adding, changing and removing them, and reading one with its credentials.

An account is never deleted, and its credentials stay: tasks that it created are looked at with them until they end. A
change takes effect in this process when it is on disk, and elsewhere within 2 s (`receiver.storage.known_accounts`).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from receiver.clock import utc_now
from receiver.domain.audit_values import Difference, difference, masked_url
from receiver.domain.keyring import KeyRing, MasterKeyMissing
from receiver.errors import Conflict, NotFound, RingbackError
from receiver.providers import AccountCheck, Providers
from receiver.providers.accounts import ProviderAccount
from receiver.storage.audit import Actor, audit
from receiver.storage.database import Database
from receiver.storage.known_accounts import KnownAccounts
from receiver.storage.provider_accounts import account_by_id, account_by_key, change_account, insert_account
from receiver.storage.transaction import Transaction
from receiver.telemetry.log import get_logger

log = get_logger("tracking.provider_accounts")

Row = Mapping[str, Any]

_HINT_LENGTH = 4
_LONG_ENOUGH = 20
"""Characters that a credential has at least of which the first are shown."""
_SHOWN = ("provider", "name", "base_url", "calls_per_second", "concurrency", "is_default", "removed_at")


class ProviderAccounts:
    """Accounts of the database. `known` chooses among them, `providers` has their adapters."""

    def __init__(self, database: Database, keyring: KeyRing, providers: Providers) -> None:
        self._database = database
        self._keyring = keyring
        self._providers = providers
        self.known = KnownAccounts(database, providers.forget)
        providers.connect(self._read)

    async def find(self, uid: str) -> dict[str, Any] | None:
        """Return the row of an account, with its owner's id as `organization_uid`; None if there is none."""
        rows = await self._database.read(account_by_id(uid))
        return rows[0] if rows else None

    async def add(self, values: Row, credentials: Mapping[str, str], actor: Actor) -> None:
        """Add an account with these columns; `changed` is next. Raises `Conflict` if its owner has one of its name."""
        now = utc_now()
        row = {**values, **self._sealed(credentials), "created_at": now, "updated_at": now, "removed_at": None}

        async def work(tx: Transaction) -> str | None:
            fault = await insert_account(tx, row)
            if fault is None:
                await audit(tx, actor, "provider_account.create", row["uid"], _difference(None, row))
            return fault

        if (fault := await self._database.writer.run(work)) is not None:
            raise Conflict(fault)

    async def change(self, account: Row, values: Row, credentials: Mapping[str, str] | None, actor: Actor) -> None:
        """Change columns of an account, and replace those credentials that are given; `changed` is next.

        Raises `NotFound` if it was removed meanwhile, `MasterKeyMissing` if the other credentials cannot be read.
        """

        def values_of(row: Row) -> dict[str, Any]:
            # Of the locked row: another change at the same time may replace another credential.
            sealed = {} if credentials is None else self._sealed({**self._kept(row, credentials), **credentials})
            return {**values, **sealed}

        await self._write(account, values_of, "provider_account.change", actor)

    async def remove(self, account: Row, actor: Actor) -> None:
        """Remove an account: it takes no new tasks once `known` is read again.

        Raises `NotFound` if it was removed meanwhile.
        """
        gone = {"removed_at": utc_now(), "is_default": False}
        await self._write(account, lambda _: gone, "provider_account.remove", actor)

    async def changed(self, uid: str) -> Row:
        """Return the row of an account whose change is on disk; this process uses it as it is from now on."""
        await self.known.refresh()
        return (await self._database.read(account_by_id(uid)))[0]

    async def check(self, provider: str, account_id: int | None) -> AccountCheck:
        """Make one call with an account that costs nothing; return what it shows."""
        return await (await self._providers.of(provider, account_id)).check_account()

    def refusal(self, provider: str, account_id: int | None) -> str | None:
        """Return why the provider refused an account's key at this process's last call; None if it did not."""
        adapter = self._providers.known(provider, account_id)
        return None if adapter is None else adapter.key_refusal()

    async def _write(self, account: Row, values_of: Callable[[Row], Row], action: str, actor: Actor) -> None:
        now = utc_now()

        async def work(tx: Transaction) -> RingbackError | None:
            try:
                changed = await change_account(tx, account, values_of, now)
            except MasterKeyMissing as error:
                return error
            if changed is None:
                return NotFound("the account was removed meanwhile", code="account_not_found", param="account")
            await audit(tx, actor, action, account["uid"], _difference(*changed))
            return None

        await self._database.writer.run(work)

    async def _read(self, key: int) -> ProviderAccount | None:
        rows = await self._database.read(account_by_key(key))
        return read_account(rows[0], self._keyring) if rows else None

    def _kept(self, account: Row, credentials: Mapping[str, str]) -> dict[str, str]:
        """Return the credentials that stay; none are read if all are replaced, whatever they were encrypted with."""
        if credentials.keys() >= (account["hints"] or {}).keys():
            return {}
        return dict(orjson.loads(self._keyring.decrypt(account["credentials"])))

    def _sealed(self, credentials: Mapping[str, str]) -> dict[str, Any]:
        return {
            "credentials": self._keyring.encrypt(orjson.dumps(credentials).decode()),
            "hints": {name: _hint(value) for name, value in credentials.items()},
        }


def read_account(row: Row, keyring: KeyRing) -> ProviderAccount:
    """Return the account of a row; without credentials, so that nothing is asked, if their master key is gone."""
    try:
        credentials = orjson.loads(keyring.decrypt(row["credentials"]))
    except MasterKeyMissing as error:
        log.warning("credentials of an account cannot be read", account_id=row["uid"], error=error.message)
        credentials = {}
    return ProviderAccount(
        provider=row["provider"],
        name=row["name"],
        credentials=credentials,
        base_url=row["base_url"],
        calls_per_second=row["calls_per_second"],
        concurrency=row["concurrency"],
        uid=row["uid"],
        organization_id=row["organization_id"],
    )


def _hint(credential: str) -> str:
    return credential[:_HINT_LENGTH] if len(credential) >= _LONG_ENOUGH else ""


def _difference(before: Row | None, after: Row) -> Difference:
    """Return what the audit log shows of a change: no credential, and nothing of one."""
    was, became = difference(*(None if row is None else _shown(row) for row in (before, after)))
    if before is None or before["credentials"] != after["credentials"]:
        became = {**(became or {}), "credentials": "set" if before is None else "changed"}
    return was, became


def _shown(row: Row) -> dict[str, Any]:
    shown = {name: row[name] for name in _SHOWN}
    removed: datetime | None = row["removed_at"]
    owner = "everyone" if row["organization_id"] is None else None
    base_url = None if row["base_url"] is None else masked_url(row["base_url"])
    return {**shown, "base_url": base_url, "removed_at": None if removed is None else str(removed), "owner": owner}
