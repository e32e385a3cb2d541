"""The SQLite file, looked into and moved on from outside."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

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
    """Return what is on disk."""
    with closing(sqlite3.connect(world.database, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, parameters)]


def change(world: World, statement: str, *parameters: Any) -> None:
    """Write to the file behind the service's back."""
    with closing(sqlite3.connect(world.database, timeout=10)) as connection, connection:
        connection.execute(statement, parameters)


async def eventually(world: World, query: str, enough: Callable[[Rows], Any], seconds: float = 10) -> Rows:
    """Return the rows once `enough` says so of them. Between looks the service commits once. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not enough(rows := select(world, query)):
            await world.api.get("/readyz")
    return rows


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Hold the write lock, as another process would."""
    with closing(sqlite3.connect(world.database, timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
