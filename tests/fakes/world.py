"""A complete environment on loopback: the sandbox provider, a subscriber, and Ringback itself.

Ringback runs in the test's process (`in_process`) or in its own process (`in_processes`).
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from models import TERMINAL
from receiver.app import create_app
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.providers.registry import APIS
from receiver.sandbox import SandboxOptions, create_sandbox
from receiver.serving.master_keys import master_keys
from receiver.serving.start import ensure_keys
from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.leases import end_leases
from tests.fakes import databases
from tests.fakes.declared import EXAMPLES, account_of, description_of
from tests.fakes.described import DescribedClient, check_deliveries
from tests.fakes.fork_server import Child, fork_server
from tests.fakes.ports import free_port
from tests.fakes.servers import bound, served
from tests.fakes.subscriber import Subscriber, listening

API_KEY = "rb_tests_Zq7vW3kXr9TmLp4cYd8NbJ2s"
PROVIDER_KEY = "the-providers-own-key"
WEBHOOK_SECRET = "Jt5wQz8nVb2kRy7mXc4hLd9s"
"""Of the webhooks that an account registers once at its provider."""
QUICK = SandboxOptions(duration=0.05, pending_seconds=0.0, webhook_retry_seconds=0.2)
"""A provider that completes tasks fast and has no faults."""
PERSISTENT = replace(QUICK, webhook_attempts=60)
"""The same, but it repeats a webhook for so long that a restart of the service does not lose it."""
FAST_POLLING: Mapping[str, Any] = {"poll_first_seconds": "0.3", "poll_max_seconds": "1"}
"""Settings with such short poll intervals that a test does not wait long for a poll."""
_PROCESS_TIMEOUT_SECONDS = 60.0
"""How long a process may take to start or to end, on a busy machine."""


class World:
    """A running Ringback with its provider, subscriber and database, as a test uses them.

    `api` is a client of Ringback with an admin key, which checks that each answer is as `/openapi.json` says;
    `provider` a client of the sandbox, and `subscriber` the server that receives deliveries.
    """

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str], subscriber: Subscriber) -> None:
        self.folder = folder
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.environment = dict(environment)
        self.subscriber = subscriber
        self.api: httpx.AsyncClient = DescribedClient(base_url=self.base, headers={"x-api-key": API_KEY}, timeout=40)
        self.provider = httpx.AsyncClient(
            base_url=environment["RINGBACK_PIAPI_BASE_URL"], headers={"x-api-key": PROVIDER_KEY}, timeout=40
        )

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.environment["RINGBACK_DATABASE_URL"]

    @property
    def settings(self) -> Settings:
        """The settings loaded from this world's environment."""
        return load_settings(self.environment, env_file=None)

    async def create(self, sandbox: Mapping[str, Any] | None = None, **fields: Any) -> httpx.Response:
        """Send a request to create a task; `sandbox` is its script at the provider. Return the response."""
        body = {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": "a cat"}, **fields}
        body["input"] = {**body["input"], **({"sandbox": dict(sandbox)} if sandbox else {})}
        return await self.api.post("/api/v1/task", json=body)

    async def created(self, sandbox: Mapping[str, Any] | None = None, **fields: Any) -> str:
        """Create a task, which must be accepted; return its id."""
        answer = await self.create(sandbox, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["task_id"])

    async def task(self, task_id: str) -> dict[str, Any]:
        """Return the current state of a task."""
        answer = await self.api.get(f"/api/v1/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    async def ended(self, task_id: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until a task has ended; return it. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                answer = await self.api.get(
                    f"/api/v1/tasks/{task_id}", params={"wait_for_completion": "true", "timeout_seconds": 30}
                )
                if answer.status_code == 200 and answer.json()["data"]["status"] in TERMINAL:
                    return dict(answer.json()["data"])

    async def ended_at_the_provider(self) -> None:
        """Wait until the provider's newest task is over. Raises TimeoutError."""
        async with asyncio.timeout(10):
            while not (await self.provider.get("/sandbox/tasks")).json()["tasks"][-1]["terminal"]:
                pass

    async def events(self, task_id: str) -> list[dict[str, Any]]:
        """Return a task's events, oldest first."""
        answer = await self.api.get(f"/api/v1/tasks/{task_id}/events", params={"limit": 200})
        return list(reversed(answer.json()["data"]["data"]))

    async def webhook(self, **fields: Any) -> dict[str, Any]:
        """Register the subscriber; return the webhook, with its secret if Ringback generated it."""
        answer = await self.api.post("/api/v1/webhooks", json={"endpoint_url": self.subscriber.url, **fields})
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    async def provider_stats(self) -> dict[str, Any]:
        """Return the sandbox's counters."""
        return dict((await self.provider.get("/sandbox/stats")).json())

    async def provider_options(self, **options: Any) -> None:
        """Change how the sandbox behaves from now on."""
        answer = await self.provider.post("/sandbox/options", json=options)
        assert answer.status_code == 200, answer.text


def as_told(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task as events and deliveries tell of it: without the account that it uses."""
    return {name: value for name, value in task.items() if name != "account"}


class ProcessWorld(World):
    """A world whose Ringback is a separate process, which can be killed and restarted."""

    process: Child | None = None

    async def start(self, *, crash: str | None = None) -> None:
        """Start `ringback serve`; return when it is ready.

        `crash` names a point of `tests.fakes.crash_points` at which it kills itself, or several with commas between.
        """
        if self.process is not None:
            await self.outlast_leases()
        environment = {**_clean_environment(), **self.environment}
        log = self.folder / "serve.log"
        self.process = await fork_server().begin(
            "serve", "--port", str(self.port), folder=self.folder, environment=environment, log=log, crash=crash
        )
        await self._ready()

    async def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def died(self, seconds: float = _PROCESS_TIMEOUT_SECONDS) -> int:
        """Wait until the process has ended by itself; return its exit status. Raises TimeoutError."""
        assert self.process is not None
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def stop(self) -> int:
        """End the process with SIGTERM; return its exit status. Raises TimeoutError."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.died()

    def log(self) -> str:
        """Return everything that the process printed."""
        return (self.folder / "serve.log").read_text(errors="replace")

    async def outlast_leases(self) -> None:
        """End all leases, which otherwise last minutes. On SQLite the next start does so itself."""
        if not self.settings.is_sqlite:
            async with await Database.open(self.settings) as database:
                await database.writer.run(lambda tx: end_leases(tx, utc_now()))

    async def _ready(self) -> None:
        assert self.process is not None
        async with asyncio.timeout(_PROCESS_TIMEOUT_SECONDS):
            while self.process.returncode is None:
                try:
                    if (await self.api.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
        raise AssertionError(f"`ringback serve` did not start:\n{self.log()}")


@asynccontextmanager
async def in_process(
    folder: Path,
    options: SandboxOptions = QUICK,
    *,
    public: bool = True,
    declared: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[World]:
    """Run a world with Ringback in this process: it is fast, and a debugger can step into it.

    It has accounts at the twins of the providers in code, and of those `declared` ones that are named.
    """
    with bound() as listening:
        port = listening.getsockname()[1]
        async with _provider_and_subscriber(
            folder, port, options, public=public, declared=declared, settings=settings
        ) as (environment, subscriber):
            world = World(folder, port, environment, subscriber)
            loaded = world.settings
            keys = await _prepare(loaded)
            app = create_app(loaded, keys)
            proxy = partial(served, root_path=loaded.root_path, trusted_proxies=loaded.trusted_proxies)
            async with world.api, world.provider, proxy(app, listening):
                yield world


@asynccontextmanager
async def in_processes(
    folder: Path,
    options: SandboxOptions = QUICK,
    *,
    public: bool = True,
    start: bool = True,
    declared: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[ProcessWorld]:
    """Run a world with the real `ringback serve` in its own process; with `start=False` the test starts it."""
    port = free_port()
    async with _provider_and_subscriber(folder, port, options, public=public, declared=declared, settings=settings) as (
        environment,
        subscriber,
    ):
        world = ProcessWorld(folder, port, environment, subscriber)
        async with world.api, world.provider:
            try:
                if start:
                    await world.start()
                yield world
            finally:
                if world.process is not None:
                    await world.kill()


@asynccontextmanager
async def _provider_and_subscriber(
    folder: Path,
    port: int,
    options: SandboxOptions,
    *,
    public: bool,
    declared: Sequence[str] = (),
    settings: Mapping[str, str],
) -> AsyncIterator[tuple[dict[str, str], Subscriber]]:
    twins = [description_of(name) for name in declared]
    async with served(create_sandbox(options, twins)) as provider, listening() as subscriber:
        environment = {
            **databases.present.environment(folder),
            "RINGBACK_API_KEY": API_KEY,
            "RINGBACK_PIAPI_BASE_URL": provider,
            "RINGBACK_PIAPI_API_KEY": PROVIDER_KEY,
            **_twins(provider, declared),
            "RINGBACK_ALLOW_PRIVATE_TARGETS": "true",
            "RINGBACK_PROVIDER_RATE": "1000/s",
            "RINGBACK_RETRY_SCHEDULE": "0,0.1,0.2,0.4,0.8,1.6",
            "RINGBACK_FAILED_CREATE_SECONDS": "0.2",
            "RINGBACK_WRONG_KEY_RATE": "10000/m",
        }
        if public:
            environment["RINGBACK_PUBLIC_URL"] = f"http://127.0.0.1:{port}"
            environment |= await _account_webhooks(provider, port)
        environment.update({f"RINGBACK_{name.upper()}": value for name, value in settings.items()})
        yield environment, subscriber
        check_deliveries(subscriber.received)


def _twins(provider: str, declared: Sequence[str]) -> dict[str, str]:
    """Return the accounts of the other providers, each at its twin."""
    accounts = {f"RINGBACK_PROVIDER_{name.upper()}_API_KEY": PROVIDER_KEY for name in APIS}
    accounts |= {f"RINGBACK_PROVIDER_{name.upper()}_BASE_URL": f"{provider}/{name}" for name in APIS}
    for name in declared:
        accounts |= account_of(name, f"{provider}/{name}", PROVIDER_KEY)
    if any((EXAMPLES / f"{name}.toml").exists() for name in declared):
        accounts["RINGBACK_PROVIDERS_DIR"] = str(EXAMPLES)
    return accounts


async def _account_webhooks(provider: str, port: int) -> dict[str, str]:
    """Register Ringback at the twins that have one address for all webhooks of an account; return their secrets."""
    openai = {"name": "ringback", "url": f"http://127.0.0.1:{port}/hooks/openai"}
    pi = {"endpoint_url": f"http://127.0.0.1:{port}/hooks/pi", "secret": WEBHOOK_SECRET}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {PROVIDER_KEY}"}) as client:
        given = await client.post(f"{provider}/openai/v1/webhook_endpoints", json=openai)
        (await client.post(f"{provider}/pi/api/v1/webhooks", json=pi)).raise_for_status()
    secrets = {"OPENAI": given.json()["secret"], "PI": WEBHOOK_SECRET}
    return {f"RINGBACK_PROVIDER_{name}_WEBHOOK_SECRET": secret for name, secret in secrets.items()}


async def _prepare(settings: Settings) -> list[str]:
    keys = master_keys(settings)
    async with await Database.open(settings) as database:
        await ensure_keys(database, settings, KeyRing(keys))
    return keys


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without any Ringback settings of the developer."""
    root = str(Path(__file__).resolve().parents[2])
    others = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    return {**others, "PYTHONPATH": root}
