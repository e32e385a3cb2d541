"""The rate limit that processes share: times in its row that no process can have reserved stop nothing."""

import pytest
from sqlalchemy import text

from receiver.domain.call_budget import LONGEST_PAUSE, most_ahead
from receiver.storage.database import Database
from receiver.storage.postgresql import PostgreSQLRateLimiter
from receiver.storage.transaction import Transaction

pytestmark = pytest.mark.postgresql_only("SQLite has one process")

INTERVAL = 0.1
SLACK = 5.0
"""Seconds that a statement may take on a busy machine."""


@pytest.fixture
def limiter(database: Database) -> PostgreSQLRateLimiter:
    assert database.shared is not None
    return database.shared.rate_limiter("piapi")


async def set_row(database: Database, next_in: float, pause_for: float | None = None) -> None:
    """Write the row as one that was reserved until in `next_in` seconds, and paused for `pause_for` seconds."""
    pause = "'-infinity'" if pause_for is None else f"clock_timestamp() + interval '{pause_for} s'"
    statement = text(
        "INSERT INTO provider_budget (provider, next_at, paused_until) "
        f"VALUES ('piapi', clock_timestamp() + interval '{next_in} s', {pause}) "
        "ON CONFLICT (provider) DO UPDATE SET next_at = excluded.next_at, paused_until = excluded.paused_until"
    )

    async def work(tx: Transaction) -> None:
        await tx.execute(statement)

    await database.writer.run(work)


async def test_what_no_process_can_have_reserved_is_dropped_and_the_rest_is_obeyed(
    database: Database, limiter: PostgreSQLRateLimiter
) -> None:
    possible = most_ahead(INTERVAL) - SLACK
    for next_in, pause_for, least, most in (
        (3600, None, 0, 1),
        (3600, 3600, 0, 1),
        (10, 3600, 5, 10),
        (10, None, 5, 10),
        (possible, None, possible - SLACK, possible),
        (0, LONGEST_PAUSE - 1, LONGEST_PAUSE - 1 - SLACK, LONGEST_PAUSE),
        (LONGEST_PAUSE + possible, LONGEST_PAUSE - 1, LONGEST_PAUSE, LONGEST_PAUSE + possible),
    ):
        await set_row(database, next_in, pause_for)
        (wait,) = await limiter.reserve(1, INTERVAL, 1)
        assert least <= wait <= most, (next_in, pause_for)


async def test_after_a_drop_the_calls_keep_to_the_rate(database: Database, limiter: PostgreSQLRateLimiter) -> None:
    await set_row(database, 4000)
    first = await limiter.reserve(5, 30.0, 1)
    second = await limiter.reserve(1, 30.0, 1)
    assert first == pytest.approx([0, 30, 60, 90, 120], abs=SLACK)
    assert second == pytest.approx([150], abs=SLACK)


async def test_a_pause_replaces_one_that_is_impossible(database: Database, limiter: PostgreSQLRateLimiter) -> None:
    await set_row(database, 0, 86_400)
    await limiter.pause(30)
    (wait,) = await limiter.reserve(1, INTERVAL, 1)
    assert 30 - SLACK <= wait <= 30
    await set_row(database, 0, 200)
    await limiter.pause(30)
    (wait,) = await limiter.reserve(1, INTERVAL, 1)
    assert 200 - SLACK <= wait <= 200
