"""One campaign: a load, a fault, then calm, and the history of all that every party saw."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fakes.fork_server import ForkServer
from tests.prove.calm import CALM_SECONDS, add_up, calm_down, stream_to_its_end
from tests.prove.commits import proxied
from tests.prove.history import History
from tests.prove.rows import write_rows
from tests.prove.stores import Kind, Stores
from tests.prove.world import Ground, World, running

Fault = Callable[[World, int], Awaitable[None]]
"""Does the faults of a campaign, in rounds, while the load runs."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A kind of fault, and on which databases it is tried."""

    name: str
    what: str
    """One sentence for the report."""
    fault: Fault
    rounds: tuple[int, int]
    """How many rounds of it there are in a quick proof, and in a whole one."""
    kinds: tuple[Kind, ...] = ("sqlite", "postgresql")
    settings: Mapping[str, str] = field(default_factory=dict)
    points: tuple[str, ...] = ()
    """Changes to each start of the service, of `tests.fakes.crash_points`."""
    impossible: str | None = None
    """Why it cannot be tried on this machine; None if it can."""
    calm_seconds: float = CALM_SECONDS
    """Within this time after the last fault everything has to have ended."""
    meets_commits: bool = False
    """Whether the service reaches PostgreSQL through a proxy that meets its COMMITs."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a campaign; `error` is why it could not be carried through."""

    campaign: Campaign
    kind: Kind
    history: Path
    rounds: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Extent:
    """How long a campaign does its faults: at most `rounds` times, and no further round begins after `seconds`."""

    rounds: int
    seconds: float


async def run_campaign(
    campaign: Campaign, kind: Kind, seed: int, out: Path, stores: Stores, forks: ForkServer, extent: Extent
) -> Outcome:
    """Run a campaign; its history is `out/<campaign>-<kind>.jsonl`."""
    path = out / f"{campaign.name}-{kind}.jsonl"
    began = time.monotonic()
    error, rounds = None, 0
    with History(path) as history, TemporaryDirectory(prefix="ringback-prove-", ignore_cleanup_errors=True) as folder:
        about = {"name": campaign.name, "database": kind, "seed": seed, "rounds": extent.rounds}
        history.write("campaign", "begin", **about, wall=time.time())
        try:
            store = stores.new(kind, Path(folder))
            ground = Ground(store=store, folder=Path(folder), forks=forks)
            rounds = await _run(campaign, ground, history, seed, extent)
            store.drop()
        except Exception as raised:
            error = _text_of(raised)
        history.write("campaign", "end", error=error)
    return Outcome(
        campaign=campaign,
        kind=kind,
        history=path,
        rounds=rounds,
        seconds=round(time.monotonic() - began, 1),
        error=error,
    )


async def _run(campaign: Campaign, ground: Ground, history: History, seed: int, extent: Extent) -> int:
    """Run a campaign; return how many rounds of faults it had."""
    own_seed = f"{seed} {campaign.name} {ground.store.kind}"
    async with AsyncExitStack() as stack:
        if campaign.meets_commits and ground.store.kind == "postgresql":
            way = proxied(ground.store, ground.folder, history, own_seed)
            url, proxy = await stack.enter_async_context(way)
            ground = replace(ground, database_url=url, commits=proxy)
        world = await stack.enter_async_context(running(ground, history, own_seed, campaign.settings, campaign.points))
        async with world.follower.following():
            async with world.load.running():
                world.until = time.monotonic() + extent.seconds
                await campaign.fault(world, extent.rounds)
                history.write("campaign", "faults over")
                await world.start_all()
            history.write("campaign", "load over")
            await calm_down(world, campaign.calm_seconds)
            await world.load.waited()
            await stream_to_its_end(world)
        await add_up(world)
        write_rows(history, ground.store)
        return max(world.begun, default=0)


def _text_of(error: BaseException) -> str:
    """Return an exception as text; of a group, those in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_text_of(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
