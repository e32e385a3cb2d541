"""Others that use the database: they hold locks, and leave transactions open, for some seconds at a time."""

import asyncio
import sqlite3
import time
from contextlib import suppress

import psycopg

from tests.fakes.databases import outside
from tests.prove.world import World

_SECONDS = (0.5, 5.0)
_POSTGRESQL = {
    "lock on a task row": ("BEGIN", "SELECT id FROM task ORDER BY id DESC LIMIT 1 FOR UPDATE"),
    "lock on ten task rows": ("BEGIN", "SELECT id FROM task ORDER BY id DESC LIMIT 10 FOR UPDATE"),
    "lock on a webhook row": ("BEGIN", "SELECT id FROM subscription ORDER BY id LIMIT 1 FOR UPDATE"),
    "transaction open on event": ("BEGIN", "LOCK TABLE event IN ROW EXCLUSIVE MODE"),
    "lock on event against writes": ("BEGIN", "LOCK TABLE event IN SHARE MODE"),
    "snapshot held": ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM task"),
}
_SQLITE = {
    "write lock": ("BEGIN IMMEDIATE",),
    "snapshot held": ("BEGIN", "SELECT count(*) FROM task"),
}


async def interfere(world: World, rounds: int) -> None:
    """Hold a lock or a transaction from outside while the load runs."""
    kinds = _POSTGRESQL if world.store.kind == "postgresql" else _SQLITE
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(3, 10))
        name, statements = world.rng.choice([*kinds.items()])
        seconds = world.rng.uniform(*_SECONDS)
        hit = await asyncio.to_thread(_hold, world.store.url, statements, seconds)
        world.fault(f"foreign {name}", hit=hit, seconds=round(seconds, 2))
    await world.load.more(10)


def _hold(url: str, statements: tuple[str, ...], seconds: float) -> bool:
    """Begin a transaction with these statements, keep it open, and roll it back; return whether it was granted."""
    is_granted = False
    # Others were first for too long, or the database was stopped.
    with suppress(psycopg.OperationalError, sqlite3.OperationalError), outside(url) as database:
        for statement in statements:
            database.execute(statement)
        is_granted = True
        time.sleep(seconds)
        database.execute("ROLLBACK")
    return is_granted
