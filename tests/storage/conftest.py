"""A database with this version's schema, one a backend."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.schema import migrate


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a database of its own, which is not there yet."""
    return load_settings({"RINGBACK_DATABASE_URL": f"sqlite:///{tmp_path / 'ringback.db'}"}, env_file=None)


@pytest.fixture(params=["sqlite"])
async def database(settings: Settings) -> AsyncIterator[Database]:
    """An empty database; what it promises, it promises on every backend."""
    migrate(settings)
    async with await Database.open(settings) as database:
        yield database


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; nothing of it is rendered."""
    with capture_logs() as entries:
        yield entries
