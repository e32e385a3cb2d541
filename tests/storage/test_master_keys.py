"""Retiring a master key: everything stored is encrypted again, and a start notices a key that is missing."""

from collections.abc import MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import insert, select, update

from models import Scope, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.errors import StartError
from receiver.serving.key_check import check_master_keys
from receiver.serving.master_keys import master_keys
from receiver.settings import Settings
from receiver.storage import encrypted_values as stored
from receiver.storage.database import Database
from receiver.storage.key_rotation import KeyRotation
from receiver.storage.keys import insert_key, key_row
from receiver.storage.master_keys import recorded_keys
from receiver.storage.tables import api_keys, idempotency_keys, subscriptions
from tests.fakes.databases import settings_in
from tests.storage.rows import add_organization, add_subscription, add_tasks, task_row

OLD, NEW = "Qm7xV2kTz9RbW4cN8sLp", "Hy3GdK6wJf5XvB1tZq0M"
BEFORE, DURING, AFTER = KeyRing([OLD]), KeyRing([OLD, NEW]), KeyRing([NEW])
ROWS = 3


@pytest.fixture(autouse=True)
def _small_pages() -> Any:
    """Read one row at a time, so that every place has several pages."""
    places = tuple(stored.Place(place.table, place.columns, 1) for place in stored.PLACES)
    with patch.object(stored, "PLACES", places), patch("receiver.storage.key_rotation.PLACES", places):
        yield


@pytest.fixture
def opened_with(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def retired(keyring: KeyRing) -> list[dict[str, str]]:
    """Return a replaced secret that still signs, and one that does not any more."""
    until = (utc_now() + timedelta(hours=1)).isoformat(), "2020-01-01T00:00:00+00:00"
    return [{"secret": keyring.encrypt("replaced"), "until": each} for each in until]


def warnings_of(logged: list[MutableMapping[str, Any]]) -> list[str]:
    return [record["event"] for record in logged if record["log_level"] == "warning"]


async def fill(database: Database, keyring: KeyRing) -> None:
    """Store values of every kind."""
    await add_organization(database)
    for _ in range(ROWS):
        await add_subscription(
            database,
            secret=keyring.encrypt("secret"),
            headers=keyring.encrypt('{"x-a":"b"}'),
            retired_secrets=retired(keyring),
        )
    await add_subscription(database)
    key = key_row(1, "a-key", "first", Scope.ADMIN, utc_now())
    await database.writer.run(lambda tx: insert_key(tx, {**key, "sealed": keyring.encrypt("a-key")}))
    claim = {
        **{"scope": "s", "body": "b", "resource_id": new_id(), "owner": new_id(), "lease_until": utc_now()},
        **{"answer": keyring.encrypt("{}"), "created_at": utc_now()},
    }
    await database.writer.run(lambda tx: tx.execute(insert(idempotency_keys), [claim]))


async def rotate(database: Database, keyring: KeyRing, *, dry_run: bool = False) -> stored.Tally:
    """Go through all pages; return what was found on them."""
    rotation, total = KeyRotation(database, keyring, timeout_seconds=3600), stored.Tally()
    position: tuple[int, int] | None = (0, 0)
    while position is not None:
        page = await rotation.page(position, None, dry_run=dry_run)
        total.by_key.update(page.tally.by_key)
        total.unreadable += page.tally.unreadable
        position = page.following
    return total


async def test_after_a_rotation_the_newest_key_alone_reads_everything(database: Database) -> None:
    await fill(database, BEFORE)
    values = 3 * ROWS + 2
    assert (await rotate(database, DURING, dry_run=True)).by_key == {BEFORE.newest: values}
    assert (await rotate(database, DURING)).by_key == {BEFORE.newest: values}
    assert (await rotate(database, DURING)).by_key == {AFTER.newest: values}
    found = await rotate(database, AFTER, dry_run=True)
    assert (found.by_key, found.unreadable) == ({AFTER.newest: values}, 0)
    for row in await database.read(select(subscriptions).where(subscriptions.c.secret.is_not(None))):
        assert AFTER.decrypt(row["secret"]) == "secret"
        assert AFTER.decrypt(row["headers"]) == '{"x-a":"b"}'
        assert [AFTER.decrypt(each["secret"]) for each in row["retired_secrets"]] == ["replaced"]
    assert AFTER.decrypt((await database.read(select(api_keys.c.sealed)))[0]["sealed"]) == "a-key"
    assert AFTER.decrypt((await database.read(select(idempotency_keys.c.answer)))[0]["answer"]) == "{}"


async def test_a_secret_that_is_changed_meanwhile_is_not_set_back(database: Database) -> None:
    await fill(database, BEFORE)
    place, given = stored.PLACES[0], DURING.encrypt("changed")
    rows = await database.read(stored.values_after(place, 0))
    _, changes = stored.examine(place, rows, DURING, utc_now())
    await database.writer.run(lambda tx: tx.execute(update(subscriptions).values(secret=given)))
    await database.writer.run(lambda tx: stored.apply_changes(tx, changes))
    assert {row["secret"] for row in await database.read(select(subscriptions.c.secret))} == {given}


async def test_a_start_refuses_keys_that_cannot_read_what_is_stored(
    database: Database, opened_with: Settings, logged: list[MutableMapping[str, Any]]
) -> None:
    await fill(database, BEFORE)
    await check_master_keys(database, opened_with, BEFORE)
    await check_master_keys(database, opened_with, DURING)
    with pytest.raises(StartError) as caught:
        await check_master_keys(database, opened_with, AFTER)
    assert f"{2 * ROWS} secrets and headers of webhooks" in caught.value.message
    assert BEFORE.newest in caught.value.message
    assert "\n" not in caught.value.message
    allowed = opened_with.model_copy(update={"allow_unreadable_secrets": True})
    await check_master_keys(database, allowed, AFTER)
    assert warnings_of(logged) == ["secrets cannot be read"]

    await rotate(database, DURING)
    await check_master_keys(database, opened_with, AFTER)
    names = [row["fingerprint"] for row in await database.read(recorded_keys())]
    assert names == [AFTER.newest]


async def test_a_key_that_was_lost_before_this_version_is_noticed_too(
    database: Database, opened_with: Settings
) -> None:
    await fill(database, BEFORE)
    with pytest.raises(StartError, match="secrets and headers of webhooks"):
        await check_master_keys(database, opened_with, AFTER)


async def test_a_start_warns_of_tasks_under_way_that_need_a_missing_key(
    database: Database, opened_with: Settings, logged: list[MutableMapping[str, Any]]
) -> None:
    await add_organization(database)
    await check_master_keys(database, opened_with, BEFORE)
    sent = {"submission": Submission.SENDING, "status": TaskStatus.PROCESSING, "due_at": utc_now()}
    await add_tasks(database, task_row(**sent, submitted_at=utc_now()), task_row())
    await check_master_keys(database, opened_with, DURING)
    status = await KeyRotation(database, DURING, timeout_seconds=3600).status()
    assert [(key.fingerprint, key.is_newest) for key in status.keys] == [(BEFORE.newest, False), (AFTER.newest, True)]
    assert status.tasks.count == 1
    assert warnings_of(logged) == []
    await check_master_keys(database, opened_with, AFTER)
    assert warnings_of(logged) == ["master key of tasks under way is missing"]
    assert logged[-1]["count"] == 1


@pytest.mark.sqlite_only("the master key is in a file")
def test_a_line_added_to_the_key_file_is_the_newest_key(settings: Settings) -> None:
    (first,) = master_keys(settings)
    with settings.sqlite_path.with_name("ringback.db.key").open("a") as file:
        file.write(f"{NEW}\n")
    assert master_keys(settings) == [first, NEW]
