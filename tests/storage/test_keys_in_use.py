"""The keys that a process uses: revoked or expired ones end there too, and the last use is stored once a minute."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from starlette.datastructures import Headers

from receiver.api import keys_in_use
from receiver.api.auth import Authenticator
from receiver.api.keys_in_use import Principal
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.errors import NotAuthenticated
from receiver.serving.start import ensure_keys
from receiver.settings import Settings
from receiver.storage.audit import AuditFilter, audit_entries_matching
from receiver.storage.database import Database
from receiver.storage.keys import insert_key, key_row, revoke_key
from receiver.storage.organizations import ensure_organization
from receiver.storage.schema import migrate
from receiver.storage.tables import api_keys

KEYS = KeyRing(["the-master-key"])
KEY = "rb_q7Xv2mZt9LcR4wKpS8dYbN3h"
HEADERS = Headers({"x-api-key": KEY})
SECONDS = 10.0


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    await migrate(settings)
    async with await Database.open(settings) as database:
        yield database


async def made(database: Database, **fields: Any) -> dict[str, Any]:
    """Insert a key of the organization `default`; return its row."""

    async def work(tx: Any) -> dict[str, Any]:
        organization_id = await ensure_organization(tx, "default", utc_now())
        row = key_row(organization_id, KEY, "client", "read", utc_now(), **fields)
        await insert_key(tx, row)
        return row

    return await database.writer.run(work)


async def revoke(database: Database, row: dict[str, Any]) -> None:
    await database.writer.run(lambda tx: revoke_key(tx, row["organization_id"], row["uid"], utc_now()))


@asynccontextmanager
async def holding(keys: Authenticator, principal: Principal) -> AsyncIterator["asyncio.Task[None]"]:
    """Hold a key in a task that waits, as a stream does."""
    held = asyncio.Event()

    async def hold() -> None:
        with keys.in_use.hold(principal):
            held.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await held.wait()
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, NotAuthenticated):
            await task


async def stored_use(database: Database) -> Any:
    return (await database.read(select(api_keys)))[0]["last_used_at"]


async def look(keys: Authenticator) -> None:
    await keys.in_use.check()
    await keys.in_use.drain()


async def test_what_a_key_holds_ends_when_it_is_revoked_here(database: Database) -> None:
    row, keys = await made(database), Authenticator(database)
    principal = await keys.principal(HEADERS)
    async with holding(keys, principal) as held:
        await revoke(database, row)
        keys.in_use.end([principal.key_id])
        async with asyncio.timeout(SECONDS):
            with pytest.raises(NotAuthenticated, match="revoked"):
                await held
    with pytest.raises(NotAuthenticated):
        await keys.principal(HEADERS)


async def test_a_process_that_gets_no_notice_ends_it_within_two_seconds(database: Database) -> None:
    row, keys = await made(database), Authenticator(database)
    async with holding(keys, await keys.principal(HEADERS)) as held:
        looking = asyncio.create_task(keys.in_use.run())
        await revoke(database, row)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(NotAuthenticated):
                await held
        looking.cancel()
    assert keys_in_use.CHECK_SECONDS + keys_in_use._PAUSE_SECONDS < keys_in_use._VALID_SECONDS <= 2


@pytest.mark.postgresql_only("SQLite has one process")
async def test_another_process_ends_it_on_a_notice(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_in_use, "CHECK_SECONDS", 3600.0)
    row, keys = await made(database), Authenticator(database)
    principal = await keys.principal(HEADERS)
    async with await Database.open(settings) as other, holding(keys, principal) as held:
        assert database.shared is not None
        assert other.shared is not None
        both = (database.shared.notices, other.shared.notices)
        running = [asyncio.create_task(notices.run()) for notices in both]
        for notices in both:
            async with asyncio.timeout(SECONDS):
                await notices.keys_changed.wait()  # it listens from now on
            notices.keys_changed.clear()
        running.append(asyncio.create_task(keys.in_use.run()))
        there = Authenticator(other)
        await revoke(other, row)
        there.in_use.end([principal.key_id])
        async with asyncio.timeout(SECONDS):
            with pytest.raises(NotAuthenticated):
                await held
        for loop in running:
            loop.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_key_that_the_setting_replaced_elsewhere_ends(database: Database, settings: Settings) -> None:
    def with_key(key: str) -> Settings:
        return settings.model_copy(update={"api_key": SecretStr(key)})

    await ensure_keys(database, with_key(KEY), KEYS)
    keys = Authenticator(database)
    principal = await keys.principal(HEADERS)
    async with holding(keys, principal) as held:
        await ensure_keys(database, with_key("another-key"), KEYS)
        await keys.in_use.check()
        with pytest.raises(NotAuthenticated):
            await held
    entries = await database.read(audit_entries_matching(AuditFilter(organization_id=principal.organization_id), 10))
    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("key.create", "setting RINGBACK_API_KEY"),
        ("key.revoke", "setting RINGBACK_API_KEY"),
        ("key.create", "setting RINGBACK_API_KEY"),
    ]


async def test_an_expired_key_is_refused_by_that_name_known_or_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(database, expires_at=utc_now() + timedelta(minutes=1))
    keys = Authenticator(database)
    principal = await keys.principal(HEADERS)
    async with holding(keys, principal) as held:
        monkeypatch.setattr(keys_in_use, "utc_now", lambda: utc_now() + timedelta(minutes=2))
        for each in (keys, Authenticator(database)):
            with pytest.raises(NotAuthenticated) as refused:
                await each.principal(HEADERS)
            assert refused.value.code == "key_expired"
        await keys.in_use.check()
        with pytest.raises(NotAuthenticated):
            await held


async def test_an_expired_admin_key_does_not_count_as_one_at_the_start(database: Database, settings: Settings) -> None:
    first = await ensure_keys(database, settings, KEYS)
    assert first is not None
    await Authenticator(database).principal(Headers({"x-api-key": first}))
    past = utc_now() - timedelta(seconds=1)
    await database.writer.run(lambda tx: tx.execute(update(api_keys).values(expires_at=past)))
    assert await ensure_keys(database, settings, KEYS) not in (None, first)


async def test_the_last_use_is_stored_and_not_again_within_a_minute_by_any_process(database: Database) -> None:
    await made(database)
    one, two = Authenticator(database), Authenticator(database)
    await one.principal(HEADERS)
    await look(one)
    first = await stored_use(database)
    assert abs(first - utc_now()) < timedelta(seconds=30)
    for keys in (one, two):
        await keys.principal(HEADERS)
        await look(keys)
    assert await stored_use(database) == first
    long_ago = first - timedelta(minutes=2)
    await database.writer.run(lambda tx: tx.execute(update(api_keys).values(last_used_at=long_ago)))
    await look(two)  # it sees that the row is old, and the key was not used since
    assert await stored_use(database) == long_ago
    await two.principal(HEADERS)
    await look(two)
    assert await stored_use(database) >= first


async def test_keys_that_nobody_uses_are_not_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await made(database)
    keys = Authenticator(database)
    await keys.principal(HEADERS)
    monkeypatch.setattr(keys_in_use, "_USE_SECONDS", -1.0)
    await keys.in_use.check()
    monkeypatch.setattr(database, "read", None)
    await keys.in_use.check()
