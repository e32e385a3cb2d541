"""Fixtures that every floor of the suite uses."""

import gc
import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
from hypothesis import HealthCheck, settings

from receiver.telemetry.log import configure_logging
from tests.fakes import databases
from tests.fakes.fork_server import end_fork_server
from tests.fakes.loopback import allow_loopback_only
from tests.fakes.postgresql_programs import MEMORY, has_memory
from tests.fakes.world import World, in_process

pytest_plugins = ["tests.fakes.unraisable"]

# What a shell starts in the background ignores Ctrl-C, and what nohup starts SIGHUP: the commands of tests would too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
allow_loopback_only()
configure_logging()
if has_memory() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
    # A commit is a dozen times faster there than on a disk. What a kill may lose is the same.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
# Every client makes one, from a hundred certificates; here none has more to verify than the others.
patch("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context)).start()

# How long an example takes is the machine's: what a property says may not depend on it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Tests look at `/readyz` and `/metrics` right after what they did.
patch("receiver.api.health.REMEMBERED_SECONDS", 0.0).start()

_FLOORS_WITH_DATABASE = ("storage", "integration", "acceptance", "faults", "browser", "fuzz", "providers")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected, and never look through them again: they live until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests: one that begins last keeps a single process busy when the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what touches the database on both kinds, unless a marker says why it is one kind's own matter."""
    node = metafunc.definition
    if node.path.parent.name not in _FLOORS_WITH_DATABASE or node.get_closest_marker("no_database"):
        return
    kinds = ["sqlite", "postgresql"]
    if node.get_closest_marker("sqlite_only"):
        kinds = ["sqlite"]
    elif node.get_closest_marker("postgresql_only"):
        kinds = ["postgresql"]
    if node.get_closest_marker("with_locks_too"):
        kinds.append("postgresql with locks")
    metafunc.parametrize("backend", kinds, indirect=True, scope="module")


@pytest.fixture(autouse=True, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of database for everything that a test starts."""
    kind: str = getattr(request, "param", "sqlite")
    made = databases.begin(kind)
    yield kind
    made.drop()


def pytest_unconfigure() -> None:
    """Stop and remove what this process made for all of its tests."""
    end_fork_server()
    databases.end_session()


@pytest.fixture
def quick_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for a task whose create call got no answer at once, not after 5 s."""
    for module in ("submit", "search"):
        monkeypatch.setattr(f"receiver.tracking.{module}.FIRST_SEARCH_SECONDS", 0.05)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with Ringback in this process and a provider that behaves."""
    async with in_process(tmp_path) as world:
        yield world
