"""What the demo runs: the service in a separate process, the sandbox provider and the subscriber in this process."""

import asyncio
import contextlib
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import ClassVar

import uvicorn
from msgspec import Struct
from starlette.types import ASGIApp

from receiver.cli.demo.service_process import HOST, ServiceProcess
from receiver.cli.demo.subscriber_log import SubscriberLog, create_subscriber
from receiver.cli.failure import Failure
from receiver.cli.listening import listen
from receiver.domain.signatures import new_secret
from receiver.hidden_fields import HidesFields
from receiver.sandbox import SandboxOptions, create_sandbox

_FAULTS = SandboxOptions(lose_share=0.3, duplicate_share=0.15, reorder_share=0.15, webhook_retry_seconds=1.0)
_REFUSED_SHARE = 0.15
"""The share of delivery attempts that the subscriber refuses."""


class Environment(HidesFields, Struct):
    """The service, the addresses of the provider and the subscriber, and what the subscriber received."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"api_key"})

    folder: Path
    """It contains the service's log and database."""
    api_key: str
    service: ServiceProcess
    sandbox_url: str
    subscriber_url: str
    subscriber: SubscriberLog
    keep_files: bool = False
    """Whether to keep the folder at the end."""


@contextlib.asynccontextmanager
async def open_environment(seed: int) -> AsyncIterator[Environment]:
    """Run the provider and the subscriber; the caller starts the service. Stop all three at the end.

    An error keeps the folder, and a `Failure` is raised again with the folder's name.
    """
    folder, keep_files = Path(tempfile.mkdtemp(prefix="ringback-demo-")), False
    subscriber = SubscriberLog(new_secret(), secrets.token_urlsafe(24), refused_share=_REFUSED_SHARE, seed=seed)
    try:
        with listen(HOST, 0) as (sandbox_socket, sandbox_url), listen(HOST, 0) as (subscriber_socket, subscriber_url):
            sandbox = create_sandbox(replace(_FAULTS, seed=seed, public_base_url=f"{sandbox_url}/files"))
            async with _served(sandbox, sandbox_socket), _served(create_subscriber(subscriber), subscriber_socket):
                api_key = "rb_demo_" + secrets.token_urlsafe(24)
                service = ServiceProcess(folder / "serve.log", _settings(folder, api_key, sandbox_url))
                environment = Environment(folder, api_key, service, sandbox_url, subscriber_url, subscriber)
                try:
                    yield environment
                finally:
                    service.kill()
        keep_files = environment.keep_files
    except Exception as error:
        keep_files = True
        failure = _first_failure(error)
        if failure is None:
            raise
        raise Failure(failure.status, f"{failure.message}; the service's log and database are in {folder}") from error
    finally:
        if not keep_files:
            shutil.rmtree(folder, ignore_errors=True)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the demo."""
        yield


@contextlib.asynccontextmanager
async def _served(app: ASGIApp, listening: socket) -> AsyncIterator[None]:
    server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _settings(folder: Path, api_key: str, sandbox_url: str) -> dict[str, str]:
    return {
        "RINGBACK_DATABASE_URL": f"sqlite:///{folder / 'ringback.db'}",
        "RINGBACK_API_KEY": api_key,
        "RINGBACK_PIAPI_BASE_URL": sandbox_url,
        "RINGBACK_PIAPI_API_KEY": "any-key",
        "RINGBACK_ALLOW_PRIVATE_TARGETS": "true",
        # Much shorter than the defaults, so that polls and retries are seen within seconds.
        "RINGBACK_POLL_FIRST_SECONDS": "3",
        "RINGBACK_POLL_MAX_SECONDS": "6",
        "RINGBACK_PROVIDER_RATE": "200/s",
        "RINGBACK_RETRY_SCHEDULE": "0,0.5,1,2,4,8",
        "RINGBACK_DELIVERY_TIMEOUT_SECONDS": "5",
        "RINGBACK_SUBMISSION_UNKNOWN_SECONDS": "12",
    }


def _first_failure(error: BaseException) -> Failure | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Failure) else None
