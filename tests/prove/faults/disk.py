"""A full disk: SQLite's files cannot grow for some seconds, by the limit of the file size of the service's process."""

import asyncio
import resource

import httpx

from tests.prove.service import Service
from tests.prove.world import World

_ROOM_BYTES = 24 * 1024
"""How much each file may still grow: a few transactions."""
IMPOSSIBLE = None if hasattr(resource, "prlimit") else "only Linux lets a process limit the files of another"
_FULL_SECONDS = (1.5, 4.0)


async def fill(world: World, rounds: int) -> None:
    """Let the files of the service grow no further for some seconds, then let them."""
    for _ in world.rounds(rounds):
        await world.load.more(world.rng.randint(4, 12))
        (service,) = world.services
        before = _refused(world)
        unlimited = _limit(service, _largest_file(world) + world.rng.randint(0, _ROOM_BYTES))
        try:
            await asyncio.sleep(world.rng.uniform(*_FULL_SECONDS))
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
    return max(path.stat().st_size for path in world.folder.iterdir() if path.is_file())


def _refused(world: World) -> int:
    return world.history.answers[503] + world.history.answers[504]


async def _readiness(service: Service) -> int | None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            return (await client.get(f"{service.base}/readyz")).status_code
        except httpx.TransportError:
            return None
