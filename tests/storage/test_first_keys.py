"""The keys that the first start creates, and that every later start requires."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from models import Scope
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing, hash_api_key
from receiver.errors import StartError
from receiver.serving.master_keys import key_file, master_keys
from receiver.serving.start import ensure_keys
from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.keys import live_key, live_keys, revoke_key
from receiver.storage.schema import migrate
from receiver.storage.tables import api_keys, organizations

FIRST, SECOND = "the-first-admin-key", "the-second-admin-key"


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
    key_file(settings).write_text("the-older-master-key, the-newer-master-key\n")
    key_file(settings).chmod(0o600)
    assert master_keys(settings) == ["the-older-master-key", "the-newer-master-key"]


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
            "RINGBACK_SECRET_KEY": "the-older-master-key , the-newer-master-key",
        },
        env_file=None,
    )
    await migrate(settings)
    assert master_keys(given) == ["the-older-master-key", "the-newer-master-key"]
    assert not key_file(settings).exists()


async def test_the_admin_key_is_created_once_and_stored_hashed(
    opened: Database, settings: Settings, tmp_path: Path
) -> None:
    key = await ensure_keys(opened, settings)
    assert key is not None
    (row,) = await live(opened, key)
    assert (row["scope"], row["hash"], row["hint"]) == (Scope.ADMIN, hash_api_key(key), key[:7])
    assert key not in repr(await opened.read(select(api_keys)))
    assert await ensure_keys(opened, settings) is None
    assert len(await opened.read(select(api_keys))) == 1
    assert key.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


async def test_the_default_organization_is_created_once(opened: Database, settings: Settings) -> None:
    await ensure_keys(opened, settings)
    await ensure_keys(opened, settings)
    assert [row["name"] for row in await opened.read(select(organizations))] == ["default"]


async def test_an_admin_key_is_created_again_when_none_is_left(opened: Database, settings: Settings) -> None:
    key = await ensure_keys(opened, settings)
    assert key is not None
    (row,) = await live(opened, key)
    await opened.writer.run(lambda tx: revoke_key(tx, row["organization_id"], row["uid"], utc_now()))
    another = await ensure_keys(opened, settings)
    assert another is not None
    assert another != key
    assert await live(opened, key) == []


async def test_a_key_from_the_settings_is_stored_and_no_other_is_created(opened: Database, settings: Settings) -> None:
    for _ in range(2):
        assert await ensure_keys(opened, with_key(settings, FIRST)) is None
    (row,) = await live(opened, FIRST)
    assert (row["scope"], row["name"]) == (Scope.ADMIN, "RINGBACK_API_KEY")
    assert len(await opened.read(select(api_keys))) == 1
    assert FIRST not in repr(await opened.read(select(api_keys)))


async def test_a_changed_key_replaces_the_previous_one_and_may_be_changed_back(
    opened: Database, settings: Settings
) -> None:
    made = await ensure_keys(opened, settings)
    assert made is not None
    for now, then in ((FIRST, SECOND), (SECOND, FIRST), (FIRST, SECOND)):
        await ensure_keys(opened, with_key(settings, now))
        (row,) = await live(opened, now)
        assert await live(opened, then) == []
        names = [each["name"] for each in await opened.read(live_keys(row["organization_id"], 10))]
        assert sorted(names) == ["RINGBACK_API_KEY", "first admin key"]
    assert len(await live(opened, made)) == 1
