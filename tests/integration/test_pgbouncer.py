"""Behind a real PgBouncer: session mode works, transaction mode is refused at the start."""

from pathlib import Path

import pytest

from receiver.errors import DatabaseAway, StartError
from receiver.storage.schema import check_schema
from tests.fakes.databases import settings_in
from tests.fakes.pgbouncer import PROGRAM, pgbouncer
from tests.fakes.world import in_process

pytestmark = [
    pytest.mark.postgresql_only("is about a pooler of PostgreSQL"),
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed"),
]


async def test_in_session_mode_a_task_is_tracked_and_its_end_is_delivered(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with pgbouncer(settings.database_url, "session") as url:
        await check_schema(settings.model_copy(update={"database_url": url}))
        async with in_process(tmp_path, database_url=url) as world:
            await world.webhook(event_types=["task.completed"])
            task_id = await world.created()
            assert (await world.ended(task_id))["status"] == "completed"
            await world.subscriber.until(len)
            assert (await world.api.get("/readyz")).status_code == 200


async def test_transaction_mode_is_refused_with_what_to_do(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with pgbouncer(settings.database_url, "transaction") as url:
        with pytest.raises(StartError, match="a pooler in transaction mode") as caught:
            await check_schema(settings.model_copy(update={"database_url": url}))
    assert not isinstance(caught.value, DatabaseAway)
    assert "\n" not in caught.value.message


async def test_a_pool_that_is_too_small_is_named_as_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.storage.postgresql.pooling._SECONDS", 0.5)
    settings = settings_in(tmp_path)
    async with pgbouncer(settings.database_url, "session", size=1) as url:
        with pytest.raises(DatabaseAway, match="at least 10 for each process"):
            await check_schema(settings.model_copy(update={"database_url": url}))
