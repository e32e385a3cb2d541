"""A database with this version's schema, one a backend."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.settings import Settings
from receiver.storage.database import Database
from tests.fakes.databases import settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a database of its own, which has no schema yet."""
    return settings_in(tmp_path, migrated=False)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database; what it promises, it promises on both kinds."""
    async with await Database.open(settings_in(tmp_path)) as database:
        yield database


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; nothing of it is rendered."""
    with capture_logs() as entries:
        yield entries
