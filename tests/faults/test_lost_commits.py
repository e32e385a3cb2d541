"""A commit that was lost is not taken for another one, and nothing that was reported as lost is stored later."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select

from receiver.errors import StorageUnavailable
from receiver.settings import load_settings
from receiver.storage.database import Database
from receiver.storage.postgresql.one_statement import MARK
from receiver.storage.schema import migrate
from receiver.storage.tables import tasks
from tests.fakes.databases import MASTER_KEY, outside
from tests.fakes.postgresql import own_server
from tests.storage.optimistic_batches import Steps
from tests.storage.rows import add_organization, add_tasks, task_row

pytestmark = pytest.mark.postgresql_only("it needs its own server")

NUMBER = "SELECT pg_current_xact_id()::text::bigint"
IN_MEMORY = {"wal_writer_delay": "10s", "autovacuum": "off"}
"""Settings with which an uncommitted transaction is hardly ever on disk at a crash, so its number is assigned again."""


async def test_a_lost_commit_is_not_mistaken_for_another_transaction_with_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with own_server(**IN_MEMORY) as server:
        url = server.url()
        settings = load_settings({"RINGBACK_DATABASE_URL": url, "RINGBACK_SECRET_KEY": MASTER_KEY}, env_file=None)
        await migrate(settings)
        async with await Database.open(settings) as database:
            await add_organization(database)
            execute = asyncpg.Connection.execute

            async def crash_at_commit(self: asyncpg.Connection, query: str, *rest: Any, **options: Any) -> str:
                if query == "COMMIT":
                    monkeypatch.undo()
                    lost = await self.fetchval(NUMBER)
                    await server.restart("immediate")
                    with outside(url) as another:
                        while another.execute(NUMBER).fetchone()[0] < lost:
                            pass
                return str(await execute(self, query, *rest, **options))

            monkeypatch.setattr(asyncpg.Connection, "execute", crash_at_commit)
            with pytest.raises(StorageUnavailable):
                await add_tasks(database, task_row())
            with outside(url) as another:
                assert another.execute("SELECT count(*) FROM task").fetchone() == (0,)
            await add_tasks(database, task_row())


async def test_a_statement_that_reaches_the_server_late_is_waited_for_or_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's process is stopped, as if the network kept the statement, while the answer is missing."""
    async with own_server() as server:
        url = server.url()
        settings = load_settings({"RINGBACK_DATABASE_URL": url, "RINGBACK_SECRET_KEY": MASTER_KEY}, env_file=None)
        await migrate(settings)
        async with await Database.open(settings) as database:
            await add_organization(database)
            await add_tasks(database, row := task_row())
            steps = Steps()
            assert await database.writer.write(steps.step, row["uid"]) == 1  # then it is prepared
            fetch = asyncpg.Connection.fetch
            stopped: list[int] = []
            on_its_way: list[asyncio.Task[Any]] = []

            async def delay(self: asyncpg.Connection, query: str, *rest: Any, **options: Any) -> Any:
                if not query.startswith(MARK):
                    return await fetch(self, query, *rest, **options)
                monkeypatch.undo()
                stopped.append(self.get_server_pid())
                os.kill(stopped[0], signal.SIGSTOP)
                on_its_way.append(asyncio.ensure_future(fetch(self, query, *rest, **options)))
                await asyncio.sleep(0.1)
                raise ConnectionResetError

            monkeypatch.setattr(asyncpg.Connection, "fetch", delay)
            writing = asyncio.create_task(database.writer.write(steps.step, row["uid"]))
            done, _ = await asyncio.wait({writing}, timeout=2)
            os.kill(stopped[0], signal.SIGCONT)
            assert not done
            (told,) = await asyncio.gather(writing, return_exceptions=True)
            await asyncio.gather(*on_its_way, return_exceptions=True)
            # The process may read the statement before the signal that ends it: what is told is what became of it.
            assert told == 2 or isinstance(told, StorageUnavailable)
            stored = 2 if told == 2 else 1
            assert await database.read(select(tasks.c.progress)) == [{"progress": stored}]
            assert await database.writer.write(steps.step, row["uid"]) == stored + 1
