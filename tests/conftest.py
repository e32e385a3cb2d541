"""Fixtures that every floor of the suite uses."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from receiver.telemetry import configure_logging
from tests.fakes.world import World, in_process

configure_logging()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with Ringback in this process and a provider that behaves."""
    async with in_process(tmp_path) as world:
        yield world
