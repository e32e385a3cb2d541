"""A full disk: SQLite's files cannot grow for some seconds, by the limit of the file size of the service's process."""

import asyncio
import resource
from contextlib import suppress

import httpx

from tests.prove.service import Service
from tests.prove.world import World

_ROOM_BYTES = 24 * 1024
"""How much beyond the size of the database a file may still grow: a few transactions of the write-ahead log."""
_UNTIL_REFUSED_SECONDS = 6.0
_REFUSED_SECONDS = (0.5, 3.0)
IMPOSSIBLE = None if hasattr(resource, "prlimit") else "only Linux lets a process limit the files of another"


async def fill(world: World, rounds: int) -> None:
    """Let the files of the service grow no further for some seconds, then let them."""
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(4, 12))
        (service,) = world.services
        before = _refused(world)
        unlimited = _limit(service, _largest_file(world) + world.rng.randint(0, _ROOM_BYTES))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_UNTIL_REFUSED_SECONDS):
                    while _refused(world) == before:  # noqa: ASYNC110 - clients in this process write it down
                        await asyncio.sleep(0.05)
            await asyncio.sleep(world.rng.uniform(*_REFUSED_SECONDS))
            readiness = await _readiness(service)
        finally:
            if service.runs:
                resource.prlimit(service.pid, resource.RLIMIT_FSIZE, unlimited)
        refused = _refused(world) - before
        world.fault("full disk", hit=refused > 0, refused=refused, readiness=readiness)
        await service.start()  # it may have ended
    await world.load.more(10)


def _limit(service: Service, size: int) -> tuple[int, int]:
    """Let no file of the process grow beyond `size` bytes; return its limits before."""
    _, hard = resource.prlimit(service.pid, resource.RLIMIT_FSIZE)
    return resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (size, hard))


def _largest_file(world: World) -> int:
    """Return the size of the largest file but the write-ahead log, which is written from its start again and again."""
    return max(path.stat().st_size for path in world.folder.iterdir() if path.is_file() and path.suffix != ".db-wal")


def _refused(world: World) -> int:
    return world.history.answers[503] + world.history.answers[504]


async def _readiness(service: Service) -> int | None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            return (await client.get(f"{service.base}/readyz")).status_code
        except httpx.TransportError:
            return None
