"""The keys that the first start creates, and that every later start requires."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from starlette.datastructures import Headers

from models import Scope
from receiver.api.auth import Authenticator
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing, hash_api_key
from receiver.errors import NotAuthenticated, StartError, StorageUnavailable
from receiver.serving.master_keys import key_file, master_keys
from receiver.serving.start import ensure_keys
from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.keys import live_key, live_keys, revoke_key
from receiver.storage.schema import migrate
from receiver.storage.tables import api_keys, organizations

FIRST, SECOND = "the-first-admin-key", "the-second-admin-key"
KEYS = KeyRing(["the-master-key"])


@pytest.fixture
async def opened(settings: Settings) -> AsyncIterator[Database]:
    await migrate(settings)
    async with await Database.open(settings) as database:
        yield database


def with_key(settings: Settings, key: str) -> Settings:
    return settings.model_copy(update={"api_key": SecretStr(key)})


async def live(database: Database, key: str) -> list[dict[str, Any]]:
    return await database.read(live_key(hash_api_key(key)))


@pytest.mark.sqlite_only("the master key is in a file")
def test_the_first_start_creates_a_master_key_that_only_its_owner_can_read(settings: Settings) -> None:
    (key,) = master_keys(settings)
    file = key_file(settings)
    assert file == settings.sqlite_path.with_name("ringback.db.key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == key
    assert len(key) >= 43
    KeyRing([key])


@pytest.mark.sqlite_only("the master key is in a file")
async def test_later_starts_read_the_same_key(settings: Settings) -> None:
    made = master_keys(settings)
    await migrate(settings)
    assert master_keys(settings) == made


@pytest.mark.sqlite_only("the master key is in a file")
def test_every_database_has_its_own_key(settings: Settings, tmp_path: Path) -> None:
    other = load_settings({"RINGBACK_DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}, env_file=None)
    assert master_keys(settings) != master_keys(other)


@pytest.mark.sqlite_only("the master key is in a file")
def test_the_file_may_hold_several_keys_oldest_first(settings: Settings) -> None:
    key_file(settings).write_text("the-older-master-key, Rk4vWq7XmZ2tYc9LpH5d\n")
    key_file(settings).chmod(0o600)
    assert master_keys(settings) == ["the-older-master-key", "Rk4vWq7XmZ2tYc9LpH5d"]


@pytest.mark.sqlite_only("the master key is in a file")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(settings: Settings, mode: int) -> None:
    master_keys(settings)
    key_file(settings).chmod(mode)
    with pytest.raises(StartError, match="chmod 600"):
        master_keys(settings)


@pytest.mark.sqlite_only("the master key is in a file")
async def test_a_database_without_its_key_is_refused_and_gets_no_new_one(settings: Settings) -> None:
    master_keys(settings)
    await migrate(settings)
    key_file(settings).unlink()
    with pytest.raises(StartError, match=r"restore the file, or set RINGBACK_SECRET_KEY"):
        master_keys(settings)
    assert not key_file(settings).exists()


@pytest.mark.sqlite_only("the master key is in a file")
def test_an_empty_key_file_is_refused_with_advice(settings: Settings) -> None:
    """A power cut between creating the file and writing to it leaves an empty file."""
    key_file(settings).touch(0o600)
    with pytest.raises(StartError, match=r"ringback\.db\.key"):
        master_keys(settings)


@pytest.mark.sqlite_only("the master key is in a file")
async def test_keys_from_the_settings_take_precedence_and_no_file_is_created(settings: Settings) -> None:
    given = load_settings(
        {
            "RINGBACK_DATABASE_URL": settings.database_url,
            "RINGBACK_SECRET_KEY": "the-older-master-key , Rk4vWq7XmZ2tYc9LpH5d",
        },
        env_file=None,
    )
    await migrate(settings)
    assert master_keys(given) == ["the-older-master-key", "Rk4vWq7XmZ2tYc9LpH5d"]
    assert not key_file(settings).exists()


async def test_the_admin_key_is_created_once_and_stored_hashed(
    opened: Database, settings: Settings, tmp_path: Path
) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    (row,) = await live(opened, key)
    assert (row["scope"], row["hash"], row["hint"]) == (Scope.ADMIN, hash_api_key(key), key[:7])
    assert key not in repr(await opened.read(select(api_keys)))
    assert await ensure_keys(opened, settings, KEYS) == key  # it was not used, so it may not have been seen
    assert len(await opened.read(select(api_keys))) == 1
    assert key.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


async def used(database: Database, key: str) -> None:
    """Authenticate once with a key, as a request does."""
    await Authenticator(database).principal(Headers({"x-api-key": key}))


async def sealed(database: Database) -> list[str | None]:
    return [row["sealed"] for row in await database.read(select(api_keys).order_by(api_keys.c.id))]


async def test_the_admin_key_is_shown_at_each_start_until_its_first_use(opened: Database, settings: Settings) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    assert await ensure_keys(opened, settings, KEYS) == key
    await used(opened, key)
    assert await sealed(opened) == [None]
    assert await ensure_keys(opened, settings, KEYS) is None
    assert len(await live(opened, key)) == 1


async def test_processes_that_start_at_once_all_show_the_same_key(opened: Database, settings: Settings) -> None:
    shown = await asyncio.gather(*(ensure_keys(opened, settings, KEYS) for _ in range(4)))
    assert len(set(shown)) == 1
    assert shown[0] is not None


async def test_after_the_first_use_a_request_writes_nothing(opened: Database, settings: Settings) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    await used(opened, key)
    with patch.object(opened.writer, "run", side_effect=AssertionError("a write")):
        await used(opened, key)


async def test_a_first_use_that_cannot_be_stored_is_served_all_the_same(opened: Database, settings: Settings) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    with patch.object(opened.writer, "run", side_effect=StorageUnavailable("the disk is full")):
        await used(opened, key)
    assert await ensure_keys(opened, settings, KEYS) == key


async def test_an_unused_key_is_shown_after_a_rotation_and_not_without_its_master_key(
    opened: Database, settings: Settings
) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    assert await ensure_keys(opened, settings, KeyRing(["the-master-key", "a-newer-one"])) == key
    assert await ensure_keys(opened, settings, KeyRing(["a-newer-one"])) is None
    assert len(await live(opened, key)) == 1  # it may have been noted down


async def test_a_key_that_the_setting_names_counts_as_used(opened: Database, settings: Settings) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    assert await ensure_keys(opened, with_key(settings, key), KEYS) is None
    assert await sealed(opened) == [None]
    assert await ensure_keys(opened, settings, KEYS) is None


async def test_a_revoked_first_key_is_not_shown_again(opened: Database, settings: Settings) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    (row,) = await live(opened, key)
    await opened.writer.run(lambda tx: revoke_key(tx, row["organization_id"], row["uid"], utc_now()))
    another = await ensure_keys(opened, settings, KEYS)
    assert another not in (None, key)
    assert (await sealed(opened))[0] is None


async def test_the_default_organization_is_created_once(opened: Database, settings: Settings) -> None:
    await ensure_keys(opened, settings, KEYS)
    await ensure_keys(opened, settings, KEYS)
    assert [row["name"] for row in await opened.read(select(organizations))] == ["default"]


async def test_an_admin_key_is_created_again_when_none_is_left(opened: Database, settings: Settings) -> None:
    key = await ensure_keys(opened, settings, KEYS)
    assert key is not None
    (row,) = await live(opened, key)
    await opened.writer.run(lambda tx: revoke_key(tx, row["organization_id"], row["uid"], utc_now()))
    another = await ensure_keys(opened, settings, KEYS)
    assert another is not None
    assert another != key
    assert await live(opened, key) == []


async def test_a_key_from_the_settings_is_stored_and_no_other_is_created(opened: Database, settings: Settings) -> None:
    for _ in range(2):
        assert await ensure_keys(opened, with_key(settings, FIRST), KEYS) is None
    (row,) = await live(opened, FIRST)
    assert (row["scope"], row["name"]) == (Scope.ADMIN, "RINGBACK_API_KEY")
    assert len(await opened.read(select(api_keys))) == 1
    assert FIRST not in repr(await opened.read(select(api_keys)))


async def test_a_changed_key_replaces_the_previous_one_and_may_be_changed_back(
    opened: Database, settings: Settings
) -> None:
    made = await ensure_keys(opened, settings, KEYS)
    assert made is not None
    for now, then in ((FIRST, SECOND), (SECOND, FIRST), (FIRST, SECOND)):
        await ensure_keys(opened, with_key(settings, now), KEYS)
        (row,) = await live(opened, now)
        assert await live(opened, then) == []
        names = [each["name"] for each in await opened.read(live_keys(row["organization_id"], 10))]
        assert sorted(names) == ["RINGBACK_API_KEY", "first admin key"]
    assert len(await live(opened, made)) == 1


async def test_a_weak_key_that_is_stored_is_refused_without_the_setting_too(
    opened: Database, settings: Settings
) -> None:
    weak, strong = "changemechangeme", "Vq7nT2xLw9KcR4mB8sYd"
    await ensure_keys(opened, with_key(settings, weak), KEYS)
    assert await ensure_keys(opened, settings, KEYS) is None
    with pytest.raises(NotAuthenticated, match="set RINGBACK_API_KEY to another one") as refused:
        await Authenticator(opened).principal(Headers({"x-api-key": weak}))
    assert refused.value.code == "weak_api_key"
    await ensure_keys(opened, with_key(settings, strong), KEYS)
    assert (await Authenticator(opened).principal(Headers({"x-api-key": strong}))).scope == Scope.ADMIN
