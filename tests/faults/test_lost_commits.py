"""A commit that a crash of PostgreSQL lost is not mistaken for that of another transaction with the same number."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from receiver.errors import StorageUnavailable
from receiver.settings import load_settings
from receiver.storage.database import Database
from receiver.storage.schema import migrate
from tests.fakes.databases import MASTER_KEY, outside
from tests.fakes.postgresql import own_server
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
