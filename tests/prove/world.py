"""Everything that a campaign runs: the provider, the subscribers, the database and the processes of the service."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.fakes.fork_server import ForkServer
from tests.fakes.servers import served
from tests.prove.client import Client
from tests.prove.commits import CommitProxy
from tests.prove.history import History
from tests.prove.load import Load
from tests.prove.notices import Notices
from tests.prove.provider import Provider
from tests.prove.service import Service
from tests.prove.signatures import new_secret
from tests.prove.stores import Store
from tests.prove.stream import Follower
from tests.prove.subscribers import Endpoint, Subscribers

API_KEY = "rb_campaigns_Hy6tRk2vWq9XmZ4c"
REPLICAS = {"sqlite": 1, "postgresql": 2}
"""How many processes serve: SQLite can have one."""
CLIENTS = 5
SETTINGS: Mapping[str, str] = {
    "api_key": API_KEY,
    "piapi_api_key": "the-providers-own-key",
    "allow_private_targets": "true",
    "provider_rate": "1000/s",
    "key_rate": "100000/s",
    "organization_limits": "creates_per_second=unlimited",
    "provider_timeout_seconds": "2",
    "delivery_timeout_seconds": "2",
    "submit_wait_seconds": "2",
    "poll_first_seconds": "1",
    "poll_max_seconds": "2",
    "submission_unknown_seconds": "6",
    "missing_polls": "5",
    "missing_seconds": "6",
    "task_timeout_seconds": "120",
    "retry_schedule": ",".join(["0", "0.2", "0.5", *["1"] * 120]),
    "log_level": "warning",
}
"""The service's settings in campaigns: everything is as by default, but waits are short."""
SHORT_LEASES = ("shorten_leases",)
"""Leases last minutes by default, to outlast every call; here they last seconds (`tests.fakes.short_leases`)."""
_WEBHOOKS: Mapping[str, Mapping[str, Any]] = {
    "all": {"event_types": ["task.*", "run.*"]},
    "ends": {},
    "ordered": {"event_types": ["task.*"], "ordered": True},
    "flaky": {"event_types": ["task.*"]},
}
"""The webhooks that are registered before anything happens, by the name of the subscriber."""


@dataclass
class World:
    """The parts of a running campaign. `rng` decides when what fault happens."""

    store: Store
    folder: Path
    history: History
    rng: random.Random
    provider: Provider
    subscribers: Subscribers
    services: list[Service]
    client: Client
    load: Load
    follower: Follower
    commits: CommitProxy | None
    """Meets the service's COMMITs; None where the campaign has no such proxy."""
    until: float = math.inf
    """When no further round of faults begins, by the monotone clock: a busy machine has fewer rounds."""
    begun: list[int] = field(default_factory=list)
    """The numbers of the rounds that began, from 1."""

    def fault(self, what: str, *, hit: bool, **details: Any) -> None:
        """Write down a fault: `hit` says whether it is known to have met what it was meant for."""
        self.history.write("fault", what, hit=hit, **details)

    def rounds(self, most: int) -> Iterator[int]:
        """Yield the numbers of rounds, at least one of them, and no more when the time for faults is over."""
        for number in range(most):
            if number and time.monotonic() > self.until:
                return
            self.begun.append(number + 1)
            yield number

    def any_service(self) -> Service:
        """Return one of the processes at random."""
        return self.rng.choice(self.services)

    async def start_all(self) -> None:
        """Wake and start every process that does not run."""
        for service in self.services:
            service.wake()
        await asyncio.gather(*(service.start() for service in self.services))

    async def register(self) -> None:
        """Register the webhooks that every campaign has."""
        for name, fields in _WEBHOOKS.items():
            await self.register_one(name, fields)

    async def register_one(self, name: str, fields: Mapping[str, Any], *, gone_after: int | None = None) -> None:
        """Register a webhook for the endpoint of this name, which is gone after `gone_after` deliveries."""
        secret = new_secret(name)
        endpoint = Endpoint(secret, gone_after=gone_after)
        self.subscribers.endpoints[name] = endpoint
        body = {"endpoint_url": self.subscribers.url(name), "secret": secret, "format": "standard", **fields}
        answer = await self.client.repeated("webhook", "/api/v1/webhooks", body, key=f"w-{name}", mark=name, name=name)
        endpoint.webhook_id = str(answer.data["id"])


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where a campaign takes place. `forks` starts the service, from a changed copy perhaps."""

    store: Store
    folder: Path
    forks: ForkServer
    commits: CommitProxy | None = None
    database_url: str | None = None
    """The service's own way to the database, through the proxy `commits`; None if it has none."""


@asynccontextmanager
async def running(
    ground: Ground, history: History, seed: str, settings: Mapping[str, str], points: tuple[str, ...] = ()
) -> AsyncIterator[World]:
    """Run a world with webhooks registered and no load yet; end all of its processes in the end."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx.AsyncClient(limits=limits, trust_env=False, headers={"x-api-key": API_KEY}) as http:
        services: list[Service] = []
        routes = random.Random(f"{seed} routes")

        def route(url: str) -> str:
            parts = urlsplit(url)
            return f"{routes.choice(services).base}{parts.path}{'?' if parts.query else ''}{parts.query}"

        provider = Provider(history, seed, Notices(history, http, route))
        subscribers = Subscribers(history, seed)
        async with served(provider.app()) as provider_url, served(subscribers.app()) as subscribers.base:
            given = {**SETTINGS, "piapi_base_url": provider_url, "public_url": "http://127.0.0.1:1", **settings}
            environment = {f"RINGBACK_{name.upper()}": value for name, value in given.items()}
            environment |= ground.store.environment(ground.database_url)
            leases = SHORT_LEASES if ground.store.kind == "postgresql" else ()
            services += [
                Service(f"service-{number}", ground.folder, environment, ground.forks, (*leases, *points))
                for number in range(1, REPLICAS[ground.store.kind] + 1)
            ]
            client = Client(
                history, http, lambda: [each.base for each in services], random.Random(f"{seed} client's choices")
            )
            world = World(
                store=ground.store,
                folder=ground.folder,
                history=history,
                rng=random.Random(f"{seed} faults"),
                provider=provider,
                subscribers=subscribers,
                services=services,
                client=client,
                load=Load(client, subscribers, seed, CLIENTS),
                follower=Follower(history, lambda: routes.choice(services).base, API_KEY),
                commits=ground.commits,
            )
            try:
                await _prepare(world)
                yield world
            finally:
                await world.load.stop()
                await asyncio.gather(*(service.kill() for service in services))
                await provider.stop()


async def _prepare(world: World) -> None:
    if world.store.kind == "postgresql":
        status = await world.services[0].command("migrate")
        if status:
            raise RuntimeError(f"`ringback migrate` failed:\n{world.services[0].log()}")
    await world.start_all()
    await world.register()
