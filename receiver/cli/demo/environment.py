"""The demo's environment: the service, the sandbox provider and a subscriber, each a process of its own."""

import asyncio
import base64
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import httpx
import orjson

from receiver.cli.demo.processes import Child, free_ports, stop_all
from receiver.cli.failure import Failure, Status

EVENT_TYPES = ["task.completed", "task.failed", "task.cancelled"]
_HOST = "127.0.0.1"
_READY_SECONDS = 30.0
_PAUSE_SECONDS = 0.05


class Environment:
    """Everything that runs, in a folder of its own. Leaving the context stops it, whatever happened."""

    def __init__(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ringback-demo-"))
        self.api_key = "rb_demo_" + secrets.token_urlsafe(24)
        self.callback_secret = secrets.token_urlsafe(24)
        self.starts = 0
        """How often the service was started."""
        self.up = asyncio.Event()
        """Set while the service is there."""
        self._started = asyncio.Condition()
        self.keep_logs = False
        """Whether somebody will want to read them."""
        service, sandbox, subscriber = free_ports(3)
        self.url, self.sandbox_url, self.subscriber_url = (
            f"http://{_HOST}:{port}" for port in (service, sandbox, subscriber)
        )
        provider_key = secrets.token_urlsafe(24)
        self._service = self._child("serve", ["--port", str(service)], self._settings(provider_key))
        self._sandbox = self._child("sandbox", _sandbox_flags(sandbox, seed, provider_key))
        self._subscriber = self._child("demo-subscriber", ["--port", str(subscriber), "--seed", str(seed)])

    def __enter__(self) -> "Environment":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stop_all([self._service, self._subscriber, self._sandbox])
        broke = kind is not None and issubclass(kind, Exception)
        if not (broke or self.keep_logs):
            shutil.rmtree(self.folder, ignore_errors=True)

    async def open(self, http: httpx.AsyncClient) -> str:
        """Start all three; return the secret that the subscriber's notices are signed with."""
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._sandbox.start()
        self._subscriber.start(orjson.dumps({"secret": secret, "callback_secret": self.callback_secret}) + b"\n")
        await self.start_service(http)
        await self._ready(http, self._sandbox, f"{self.sandbox_url}/sandbox/stats")
        await self._ready(http, self._subscriber, f"{self.subscriber_url}/stats")
        return secret

    async def start_service(self, http: httpx.AsyncClient) -> None:
        """Start the service, on the same port and database each time, and wait until it is ready."""
        self._service.start()
        await self._ready(http, self._service, f"{self.url}/readyz")
        async with self._started:
            self.starts += 1
            self.up.set()
            self._started.notify_all()

    def kill_service(self) -> None:
        """End the service with SIGKILL, in the midst of whatever it does."""
        self.up.clear()
        self._service.kill()

    async def started_after(self, start: int) -> None:
        """Wait until the service was started more often than `start` times: who served then is dead for certain."""
        async with self._started:
            await self._started.wait_for(lambda: self.starts > start)

    def check(self) -> None:
        """Raise `Failure` if a process ended that should be there."""
        expected = [self._sandbox, self._subscriber, *([self._service] if self.up.is_set() else [])]
        for child in expected:
            if not child.alive:
                raise _ended(child)

    async def _ready(self, http: httpx.AsyncClient, child: Child, url: str) -> None:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await _answers(http, url):
                    if not child.alive:
                        raise _ended(child)
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            message = f"`ringback {child.name}` is not ready after {_READY_SECONDS:g} s: {child.last_words()}"
            raise Failure(Status.UNREACHABLE, message) from None

    def _child(self, name: str, flags: list[str], settings: dict[str, str] | None = None) -> Child:
        arguments = [name, *flags, "--host", _HOST]
        return Child(name, arguments, log=self.folder / f"{name}.log", settings=settings or {})

    def _settings(self, provider_key: str) -> dict[str, str]:
        return {
            "RINGBACK_DATABASE_URL": f"sqlite:///{self.folder / 'ringback.db'}",
            "RINGBACK_API_KEY": self.api_key,
            "RINGBACK_PUBLIC_URL": self.url,
            "RINGBACK_PIAPI_BASE_URL": self.sandbox_url,
            "RINGBACK_PIAPI_API_KEY": provider_key,
            "RINGBACK_ALLOW_PRIVATE_TARGETS": "true",
            "RINGBACK_POLL_FIRST_SECONDS": "3",
            "RINGBACK_POLL_MAX_SECONDS": "6",
            "RINGBACK_PROVIDER_RATE": "200/s",
            "RINGBACK_RETRY_SCHEDULE": "0,0.5,1,2,4,8",
            "RINGBACK_DELIVERY_TIMEOUT_SECONDS": "5",
            "RINGBACK_SUBMISSION_UNKNOWN_SECONDS": "12",
        }


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url, timeout=2.0)).is_success
    except httpx.TransportError:
        return False


def _sandbox_flags(port: int, seed: int, api_key: str) -> list[str]:
    shares = ["--lose-share", "0.3", "--duplicate-share", "0.15", "--reorder-share", "0.15"]
    return ["--port", str(port), "--seed", str(seed), "--api-key", api_key, "--webhook-retry-seconds", "1", *shares]


def _ended(child: Child) -> Failure:
    return Failure(Status.UNREACHABLE, f"`ringback {child.name}` ended by itself: {child.last_words()}")
