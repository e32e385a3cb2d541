"""What is done once before anything is served: the database's lock, its schema, the keys."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass

from receiver.clock import utc_now
from receiver.serving.master_keys import master_keys
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.keys import ensure_admin_key
from receiver.storage.schema import check_schema, migrate
from receiver.storage.sqlite.location import lock_database


@dataclass(frozen=True, slots=True)
class Started:
    """The master keys, oldest first, and the admin key if the first start made one just now."""

    master_keys: list[str]
    new_admin_key: str | None


@contextmanager
def started(settings: Settings) -> Iterator[Started]:
    """Prepare the database and the keys. A SQLite file stays locked for this process until the context ends.

    Raises `StartError` that says what to do.
    """
    with closing(lock_database(settings.sqlite_path)) if settings.is_sqlite else nullcontext():
        keys = master_keys(settings)
        yield Started(keys, asyncio.run(_prepare_database(settings)))


async def ensure_keys(database: Database, settings: Settings) -> str | None:
    """Ensure that the first organization and an admin key exist; return the key if one was made just now."""
    admin_key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    return await database.writer.run(lambda tx: ensure_admin_key(tx, admin_key, utc_now()))


async def _prepare_database(settings: Settings) -> str | None:
    if settings.is_sqlite:
        await migrate(settings)
    else:
        await check_schema(settings)
    async with await Database.open(settings) as database:
        return await ensure_keys(database, settings)
