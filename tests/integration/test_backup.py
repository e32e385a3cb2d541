"""A backup of a database that is served, and what a restore of it does with what happened since."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from receiver.domain.ids import new_id
from receiver.storage.after_restore import SEQUENCE_GAP
from tests.fakes.command_line import app
from tests.fakes.postgresql_programs import programs
from tests.fakes.rows import change, eventually, select
from tests.fakes.world import FAST_POLLING, QUICK, World, in_process, in_processes

EVENT_STREAM = {"accept": "text/event-stream"}
SHORT: dict[str, Any] = {**FAST_POLLING, "submission_unknown_seconds": "0.2"}
HELD_BULK_RETRY = (
    "INSERT INTO bulk_action (uid, organization_id, kind, requested_by, status, filter, matched, done, cursor, newest, "
    "due_at, leased, created_at) SELECT ?, id, 'retry', 'it', 'running', '{}', 1, 0, 0, 9, "
    "'2100-01-01 00:00:00.000000', true, "
    "created_at FROM organization"
)
"""A bulk action that another process holds."""
SILENT = replace(QUICK, duration=600.0, lose_share=1.0)
"""A provider whose tasks go on, and that sends no webhooks: what is found is found in its list."""


async def run(world: World, *arguments: str, status: int = 0) -> Any:
    """Run a command with `--json`; return what it printed, or its error if it is to fail."""
    is_server = not world.settings.is_sqlite and arguments[0] in ("backup", "restore")
    own = ("--programs", str(programs().folder)) if is_server else ()
    call = [*arguments, *own, "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, app, call, env=world.environment)
    assert result.exit_code == status, (result.output, result.exception)
    return orjson.loads(result.stdout) if status in (0, 1) else result.stderr


async def test_a_backup_of_a_served_database_is_whole_private_and_noted(tmp_path: Path) -> None:
    file = tmp_path / "made.backup"
    async with in_process(tmp_path) as world:
        writing = asyncio.create_task(write_until_stopped(world))
        made = await run(world, "backup", "--to", str(file))
        writing.cancel()
        assert made["bytes"] == file.stat().st_size
        assert "--force" in await run(world, "backup", "--to", str(file), status=3)
        made = await run(world, "backup", "--to", str(file), "--force")
        (note,) = select(world, "SELECT value FROM installation_fact WHERE name = 'last_backup'")
        findings = (await run(world, "database", "check", status=check_status(world)))["findings"]
        size = await run(world, "database", "size")
    assert orjson.loads(note["value"])["bytes"] == made["bytes"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert made["master_key"] == ("RINGBACK_SECRET_KEY" if world.settings.secret_key else f"{tmp_path}/ringback.db.key")
    assert not list(tmp_path.glob("*.part"))
    bad = {each["check"] for each in findings if each["severity"] == "bad"}
    assert bad <= {"fsync", "full_page_writes", "autovacuum"}  # of a server that is for tests alone
    assert {each["table"] for each in size["tables"]} > {"task", "event", "installation_fact"}


def check_status(world: World) -> int:
    return 0 if world.settings.is_sqlite else 1


async def write_until_stopped(world: World) -> None:
    while True:
        await world.created()


async def test_after_a_restore_nothing_is_bought_twice_and_no_stream_skips_an_event(tmp_path: Path) -> None:
    file = tmp_path / "made.backup"
    async with in_processes(tmp_path, SILENT, **SHORT) as world:
        running = await world.created()
        await world.provider_options(submit_status=503)
        sent, unsent = await world.created(), await world.created()
        await eventually(world, "SELECT 1 AS one FROM task WHERE submission = 'waiting'", lambda rows: len(rows) == 2)
        change(world, "UPDATE task SET due_at = '2099-01-01 00:00:00.000000' WHERE uid = ?", unsent)
        change(world, "UPDATE task SET max_attempts = 3")
        change(world, HELD_BULK_RETRY, new_id())
        await run(world, "backup", "--to", str(file))
        await world.provider_options(submit_status=None)
        change(world, "UPDATE task SET due_at = created_at WHERE uid = ?", sent)
        bought = await until_accepted(world, sent)
        lost = await world.created()
        seen = newest_event(world)
        assert "Ringback" in await run(world, "restore", str(file), "--force", status=3)  # while it is served
        await world.stop()

        restored = await run(world, "restore", str(file), "--force")
        await world.start()

        assert (restored["searched"], restored["polled"]) == (2, 1)
        assert await until_accepted(world, sent) == bought
        ended = await world.ended(unsent)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "submission_unknown")
        assert "restored from a backup" in ended["error"]["message"]
        assert (await world.task(running))["status"] in ("pending", "processing")
        assert (await world.api.get(f"/api/v1/tasks/{lost}")).status_code == 404
        assert (await world.provider_stats())["created"] == 3
        for position in (1, seen):  # within what the backup has, and after it
            numbers = await next_events(world, position, until=unsent)
            assert numbers == sorted(numbers)
            assert numbers[-1] > SEQUENCE_GAP
        (row,) = select(world, "SELECT max_attempts, attempt FROM task WHERE uid = ?", sent)
        assert row["max_attempts"] == row["attempt"]
        assert select(world, "SELECT status, due_at FROM bulk_action") == [{"status": "cancelled", "due_at": None}]


async def test_a_database_that_was_restored_by_other_means_is_prepared_by_a_command(tmp_path: Path) -> None:
    async with in_processes(tmp_path, SILENT, **SHORT) as world:
        await world.provider_options(submit_status=503)
        unsent = await world.created()
        seen = newest_event(world)
        assert "Ringback" in await run(world, "database", "after-restore", status=3)  # while it is served
        await world.stop()
        done = await run(world, "database", "after-restore")
        assert (done["searched"], done["polled"]) == (1, 0)
        await world.provider_options(submit_status=None)
        await world.start()
        ended = await world.ended(unsent)
        assert ended["error"]["code"] == "submission_unknown", "it may have been bought since"
        assert newest_event(world) > seen + SEQUENCE_GAP / 2


async def until_accepted(world: World, task_id: str) -> str:
    query = f"SELECT provider_task_id FROM task WHERE submission = 'accepted' AND uid = '{task_id}'"
    (row,) = await eventually(world, query, bool, 20)
    return str(row["provider_task_id"])


def newest_event(world: World) -> int:
    return int(select(world, "SELECT max(id) AS newest FROM event")[0]["newest"])


async def next_events(world: World, after: int, *, until: str) -> list[int]:
    """Return the numbers that a stream which resumes after an event shows, up to the failure of a task."""
    numbers = []
    async with world.api.stream(
        "GET", "/api/v1/events", headers={**EVENT_STREAM, "last-event-id": str(after)}
    ) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("id:"):
                numbers.append(int(line.removeprefix("id:")))
            elif line.startswith("data:") and until in line and "task.failed" in line:
                return numbers
    raise AssertionError(numbers)


@pytest.mark.sqlite_only("the database is a file")
async def test_a_restore_keeps_what_it_replaces_and_refuses_what_would_not_work(tmp_path: Path) -> None:
    file, path = tmp_path / "made.backup", tmp_path / "ringback.db"
    async with in_process(tmp_path) as world:
        await world.webhook()
        await run(world, "backup", "--to", str(file))
        await world.created()
    for content in (file.read_bytes()[:-9000], b"Dear diary"):
        broken = tmp_path / "broken.backup"
        broken.write_bytes(content)
        assert f"{broken} " in await run(world, "restore", str(broken), status=3)
    before = path.read_bytes()
    key = tmp_path / "ringback.db.key"
    right = key.read_text()
    key.write_text("Qm8vT2xKc5Rz7WnYp4Lj9HdB3sGf6Xa1\n")
    assert "does not fit" in await run(world, "restore", str(file), status=3)
    key.unlink()
    assert "master key is missing" in await run(world, "restore", str(file), status=3)
    assert path.read_bytes() == before
    key.write_text(right)
    key.chmod(0o600)

    path.with_name("ringback.db-wal").write_bytes(b"of the database before")
    replaced = (await run(world, "restore", str(file)))["replaced"]

    assert count(Path(replaced), "task") == 1
    assert count(path, "task") == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.glob("ringback.db*") if "before-restore" not in each.name) == [
        "ringback.db",
        "ringback.db.key",
        "ringback.db.lock",
    ]


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
