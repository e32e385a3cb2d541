"""The history of a run is read by the run, however many events its organization has."""

import pytest

from receiver.domain.ids import new_id
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.events import events_of_run, large_events
from tests.storage.test_task_lists import explained

pytestmark = [pytest.mark.asyncio, pytest.mark.sqlite_only("how it plans does not depend on the rows that are there")]


async def test_an_index_serves_the_history(database: Database, settings: Settings) -> None:
    query = events_of_run(new_id(), 100, 7)
    for each in (query, large_events(query, brief=True).query):
        plan = await explained(database, each, is_sqlite=settings.is_sqlite)
        assert "ix_event_run_uid" in plan
