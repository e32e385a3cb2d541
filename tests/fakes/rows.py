"""Direct reads and writes of a world's database, bypassing the service."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from tests.fakes.databases import outside, read_only
from tests.fakes.world import World

Rows = list[dict[str, Any]]

DELIVERIES = (
    "SELECT s.endpoint_url, s.uid AS webhook, e.uid AS event, e.type, d.status, d.attempt, d.due_at, d.settled_at "
    "FROM delivery d JOIN event e ON e.id = d.event_id JOIN subscription s ON s.id = d.subscription_id ORDER BY d.id"
)
ATTEMPTS = (
    "SELECT s.endpoint_url, e.uid AS event, a.number, a.started_at, a.duration_ms, a.status_code, a.error, a.response "
    "FROM delivery_attempt a JOIN delivery d ON d.id = a.delivery_id JOIN event e ON e.id = d.event_id "
    "JOIN subscription s ON s.id = d.subscription_id ORDER BY a.id"
)
RECEIPTS = "SELECT * FROM receipt ORDER BY id"


def select(world: World, query: str, *parameters: Any) -> Rows:
    """Return the rows that a query selects from the committed data."""
    with outside(world.database) as database:
        found = database.execute(query, parameters)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


def change(world: World, statement: str, *parameters: Any) -> None:
    """Run a statement that changes the database."""
    with outside(world.database) as database:
        database.execute(statement, parameters)


def refusing_writes(world: World) -> AbstractContextManager[None]:
    """Let the service read but not write, as when another process locks SQLite or PostgreSQL becomes a standby."""
    return read_only(world.database)


async def eventually(world: World, query: str, enough: Callable[[Rows], Any], seconds: float = 10) -> Rows:
    """Return the rows once `enough` holds for them. The service commits once between two reads. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not enough(rows := select(world, query)):
            await world.api.get("/readyz")
    return rows
