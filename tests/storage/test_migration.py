"""Migrating a database that an earlier version of Ringback created and filled, on both kinds of database."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool, create_engine, select

import migrations
from models import Submission, TaskStatus
from receiver.domain.ids import new_id
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.events import kept_events
from receiver.storage.postgresql.server import core_engine
from receiver.storage.schema import current_revision, migrate
from receiver.storage.sqlite.values import write_moment
from receiver.storage.tables import tasks
from receiver.storage.tasks import TaskFilter, tasks_matching
from tests.fakes.claims import claim_polls, claim_unsent
from tests.fakes.databases import outside, settings_in
from tests.storage.rows import NOW

FIRST_REVISION = "0001"
RENAMED = {"looks": "poll_count", "heard_at": "last_update_at"}
"""The columns of `task` that a later revision renames, and their names now."""
ADDED: dict[str, Any] = {
    "missing_count": 0,
    "missing_since": None,
    "exception_count": 0,
    "cancel_requested_at": None,
    "submit_token": None,
    "stored_bytes": 0,
    "trace_context": None,
    "handle": None,
    "account_id": None,
}
"""The columns of `task` that later revisions add, with the values that existing rows get."""
EARLIER = NOW - timedelta(minutes=10)
LATER = NOW + timedelta(minutes=3)
BASE: dict[str, Any] = {
    "organization_id": 1,
    "provider": "piapi",
    "model": "flux",
    "task_type": "txt2img",
    "bulk": False,
    "status": TaskStatus.QUEUED,
    "submission": Submission.WAITING,
    "attempt": 1,
    "max_attempts": 3,
    "backoff_seconds": 0.5,
    "provider_task_id": None,
    "progress": 0,
    "revision": "",
    "words": None,
    "input": {"prompt": "a ☃ in the snow"},
    "config": {"service_mode": "public"},
    "metadata": {"customer": 7},
    "output": None,
    "error": None,
    "logs": None,
    "detail": None,
    "meta": None,
    "callback_id": None,
    "ended_event": None,
    "run_uid": None,
    "step": None,
    "created_at": EARLIER,
    "updated_at": EARLIER,
    "submitted_at": None,
    "started_at": None,
    "ended_at": None,
    "heard_at": EARLIER,
    "due_at": EARLIER,
    "leased": False,
    "looks": 0,
}
"""A task's row in the first schema, without its id: it waits to be sent, and is due."""
ACCEPTED = {"submission": Submission.ACCEPTED, "submitted_at": EARLIER}
ROWS: dict[str, dict[str, Any]] = {
    "waiting": {"looks": 2},
    "being sent": {"submission": Submission.SENDING, "submitted_at": NOW, "due_at": LATER, "leased": True},
    "due for a poll": {
        **ACCEPTED,
        "status": TaskStatus.PROCESSING,
        "provider_task_id": "pt-due",
        "progress": 40,
        "revision": "3.040",
        "words": ["dreaming"],
        "heard_at": NOW - timedelta(seconds=90),
        "due_at": NOW - timedelta(seconds=1),
        "looks": 4,
    },
    "being polled": {
        **ACCEPTED,
        "status": TaskStatus.PENDING,
        "provider_task_id": "pt-leased",
        "due_at": LATER,
        "leased": True,
        "looks": 1,
    },
    "completed": {
        **ACCEPTED,
        "status": TaskStatus.COMPLETED,
        "provider_task_id": "pt-completed",
        "progress": 100,
        "output": {"image_url": "https://example.com/1.png"},
        "started_at": EARLIER,
        "ended_at": NOW,
        "ended_event": new_id(),
        "heard_at": NOW,
        "due_at": None,
        "looks": 0,
    },
    "failed": {
        "submission": Submission.REFUSED,
        "status": TaskStatus.FAILED,
        "error": {"code": 400, "message": "no such model"},
        "ended_at": NOW,
        "due_at": None,
        "looks": 3,
    },
}
"""Tasks in several states: how each differs from `BASE`."""


@pytest.fixture
async def filled(settings: Settings) -> dict[str, dict[str, Any]]:
    """A database at the first revision with one task for each of `ROWS`; return their rows, by the names there."""
    await create_at(settings, FIRST_REVISION)
    rows = {name: {"uid": new_id(), **BASE, **changes} for name, changes in ROWS.items()}
    with outside(settings.database_url) as database:
        database.execute(
            "INSERT INTO organization (uid, name, created_at) VALUES (?, 'default', ?)", (new_id(), write_moment(NOW))
        )
        for row in rows.values():
            statement = f"INSERT INTO task ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
            database.execute(statement, [stored(value) for value in row.values()])
    return rows


async def create_at(settings: Settings, revision: str) -> None:
    """Create the schema of a revision in an empty database, as the version of that time did."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    if settings.is_sqlite:
        engine = create_engine(f"sqlite:///{settings.sqlite_path}")
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()
    else:
        server = core_engine(settings.database_url, writes=True, poolclass=NullPool)
        async with server.connect() as connecting:
            await connecting.run_sync(upgrade)
        await server.dispose()


def stored(value: Any) -> Any:
    """Return a value as text where the database stores it as a document or a time."""
    if isinstance(value, datetime):
        return write_moment(value)
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in row.items()}


def indexes(settings: Settings) -> set[tuple[str, ...]]:
    """Return the name, the table and the definition of every index."""
    catalogue = (
        "SELECT name, tbl_name, coalesce(sql, '') FROM sqlite_master WHERE type = 'index'"
        if settings.is_sqlite
        else "SELECT indexname, tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )
    with outside(settings.database_url) as database:
        return {tuple(row) for row in database.execute(catalogue)}


async def test_every_row_keeps_its_values_under_the_new_names(
    settings: Settings, filled: dict[str, dict[str, Any]]
) -> None:
    assert await migrate(settings) == (FIRST_REVISION, migrations.HEAD)
    async with await Database.open(settings) as database:
        found = {row.pop("uid"): row for row in await database.read(select(tasks))}
    assert {uid: {**row, "uid": uid} for uid, row in found.items()} == {
        row["uid"]: {"id": found[row["uid"]]["id"], **renamed(row), **ADDED} for row in filled.values()
    }


async def test_the_migrated_database_has_the_indexes_of_a_new_one(
    settings: Settings, filled: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert filled
    await migrate(settings)
    (tmp_path / "new").mkdir()
    assert indexes(settings) == indexes(settings_in(tmp_path / "new"))


async def test_the_service_goes_on_with_the_tasks_as_they_were(
    settings: Settings, filled: dict[str, dict[str, Any]]
) -> None:
    await migrate(settings)
    uids = {name: row["uid"] for name, row in filled.items()}
    async with await Database.open(settings) as database:
        loaded = await database.writer.run(lambda tx: tx.load_tasks(uids.values()))
        for name, row in filled.items():
            state = loaded[uids[name]]
            assert (state.poll_count, state.last_update_at) == (row["looks"], row["heard_at"])
        (polled,) = await claim_polls(database.writer, NOW, LATER, 10)
        assert (polled.state.uid, polled.state.poll_count) == (uids["due for a poll"], 4)
        (unsent,) = await claim_unsent(database.writer, NOW, LATER, 10, (0, False))
        assert (unsent.state.uid, unsent.state.poll_count) == (uids["waiting"], 2)
        # The leases of another process last as long as before.
        due_later = await claim_polls(database.writer, LATER, LATER + timedelta(minutes=3), 10)
        assert {each.state.uid for each in due_later} == {
            uids[name] for name in ("being sent", "being polled", "due for a poll")
        }
        listed = await database.read(tasks_matching(TaskFilter(organization_id=1, status=TaskStatus.COMPLETED), 10))
        assert [(row["uid"], row["output"]) for row in listed] == [(uids["completed"], filled["completed"]["output"])]


async def test_events_before_the_oldest_one_count_as_purged(
    settings: Settings, filled: dict[str, dict[str, Any]]
) -> None:
    assert filled
    with outside(settings.database_url) as database:
        database.execute(
            "INSERT INTO event (id, uid, organization_id, type, snapshot, created_at) "
            "VALUES (5, ?, 1, 'webhook.disabled', '{}', ?)",
            (new_id(), write_moment(NOW)),
        )
    await migrate(settings)
    async with await Database.open(settings) as migrated:
        assert await migrated.read(kept_events(1)) == [{"oldest": 5, "purged": 4}]


@pytest.mark.sqlite_only("the copy is a file beside the database")
async def test_the_file_as_it_was_is_kept_beside_it(
    settings: Settings, filled: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert filled
    await migrate(settings)
    (copy,) = tmp_path.glob("*.before-*")
    assert copy.name == f"ringback.db.before-{FIRST_REVISION}"
    with outside(f"sqlite:///{copy}") as database:
        assert database.execute("SELECT count(*) FROM task").fetchone() == (len(filled),)


async def test_a_failed_migration_leaves_the_first_schema_with_its_rows(
    settings: Settings, filled: dict[str, dict[str, Any]], add_revision: Callable[[str], None]
) -> None:
    before = read_tasks(settings.database_url)
    assert len(before) == len(filled)
    add_revision('raise RuntimeError("half-way")')
    with pytest.raises(RuntimeError, match="half-way"):
        await migrate(settings)
    assert await current_revision(settings) == FIRST_REVISION
    assert read_tasks(settings.database_url) == before
    if settings.is_sqlite:
        copy = settings.sqlite_path.with_name(f"{settings.sqlite_path.name}.before-{FIRST_REVISION}")
        assert read_tasks(f"sqlite:///{copy}") == before


def read_tasks(url: str) -> list[tuple[Any, ...]]:
    """Return the tasks of a database at the first revision, past the service."""
    with outside(url) as database:
        return [tuple(row) for row in database.execute(f"SELECT uid, {', '.join(BASE)} FROM task ORDER BY id")]
