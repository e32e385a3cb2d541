"""The service put together: opened in order, closed in the reverse order."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from receiver.api.auth import Authenticator
from receiver.api.idempotency import Idempotency
from receiver.api.limits import KeyLimit, KeyLimits
from receiver.api.routes import refuse_path, routes
from receiver.api.services import Services
from receiver.clock import utc_now
from receiver.domain.actions import Actions
from receiver.domain.keyring import KeyRing
from receiver.domain.transitions import PollSchedule
from receiver.events.after_commit import Waiting, WakeTimer
from receiver.events.feed import Feed
from receiver.events.postgresql_log import Log
from receiver.events.record import AfterCommit
from receiver.events.stream import Streams
from receiver.inbound.receive import InboundEndpoint
from receiver.outbound.deliver import Deliverer
from receiver.outbound.guard import AddressGuard
from receiver.outbound.ping import Pinger
from receiver.outbound.replays import Replays
from receiver.outbound.request_preview import RequestPreviews
from receiver.outbound.sender import Sender
from receiver.outbound.settle import Settler
from receiver.outbound.subscriptions import Subscriptions
from receiver.providers import PiAPI, Provider, RateLimiter
from receiver.runs.actions_file import read_actions
from receiver.runs.advance import Advancer
from receiver.runs.service import Runs
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.leases import end_leases
from receiver.tracking.adopt import Adopter
from receiver.tracking.apply import Applier
from receiver.tracking.cancel import Canceller
from receiver.tracking.create import Creator
from receiver.tracking.poll import Poller
from receiver.tracking.retry import Retrier
from receiver.tracking.submit import Submitter
from receiver.tracking.submit import lease_seconds as task_lease_seconds
from receiver.tracking.tracker import Tracker
from receiver.workers.cleanup import Cleaner
from receiver.workers.dispatch import DeliveryDispatcher
from receiver.workers.dispatch import lease_seconds as delivery_lease_seconds
from receiver.workers.replay import ReplayWorker
from receiver.workers.supervisor import Supervisor
from receiver.workers.task_worker import SIDE_BY_SIDE, TaskWorker

_DRAIN_SECONDS = 10.0
_CONNECTIONS = 1024
"""To subscribers. A lane that hangs holds few of them (`domain.lanes`), so that it takes hundreds to use them up."""

_TEST_CONNECTIONS = 16
"""To webhooks that are being tried. Apart from the others, so that trials of what hangs hold up no delivery."""


class Service:
    """Every room of the house, put together for one process."""

    def __init__(self, settings: Settings, database: Database, keys: list[str], actions: Actions) -> None:
        self._database = database
        writer, keyring = database.writer, KeyRing(keys)
        task_lease = task_lease_seconds(settings.provider_timeout_seconds)
        self.piapi = _piapi(settings, database)
        self.providers: dict[str, Provider] = {self.piapi.name: self.piapi}
        self.dispatcher = DeliveryDispatcher(timeout=settings.delivery_timeout_seconds)
        self.feed = Feed()
        delivery_lease = delivery_lease_seconds(settings.delivery_timeout_seconds)
        self.waiting = Waiting()
        self.shared = database.shared
        self.log = Log(database, self.shared.notices, self.feed, self.waiting) if self.shared else None
        after_commit = AfterCommit(self.waiting, self.dispatcher, WakeTimer(), self.log or self.feed, delivery_lease)
        advancer = Advancer(after_commit.due)
        applier = Applier(_poll_schedule(settings), after_commit, advancer)
        creator = Creator(after_commit, lease_seconds=task_lease)
        submitter = Submitter(database, applier, self.providers, keyring, settings.public_url, lease_seconds=task_lease)
        poller = Poller(
            database, applier, submitter, self.providers, keyring, unknown_seconds=settings.submission_unknown_seconds
        )
        canceller = Canceller(writer, applier, self.providers)
        guard = AddressGuard.from_settings(settings)
        self.sender = Sender(guard, timeout=settings.delivery_timeout_seconds, connections=_CONNECTIONS)
        self.test_sender = Sender(guard, timeout=settings.delivery_timeout_seconds, connections=_TEST_CONNECTIONS)
        self.dispatcher.connect(
            database, Deliverer(database, self.sender, Settler(after_commit), keyring, settings.retry_delays)
        )
        self.task_worker = TaskWorker(
            writer, poller, after_commit.due, lease_seconds=task_lease, side_by_side=_side_by_side(settings)
        )
        retrier, adopter = Retrier(after_commit), Adopter(database, applier, self.providers)
        self.tracker = Tracker(database, creator, submitter, poller, canceller, retrier, adopter, after_commit.waiting)
        self.runs = Runs(database, after_commit, self.tracker, actions, advancer)
        replays = Replays(
            database, self.dispatcher, retention_days=settings.retention_days, lease_seconds=delivery_lease
        )
        self.replayer = ReplayWorker(replays)
        self.cleaner = Cleaner(database, retention_days=settings.retention_days)
        self.hooks = InboundEndpoint(
            writer,
            applier,
            self.providers,
            keyring,
            shared_secrets=_shared_secrets(settings),
            max_body_bytes=settings.max_body_bytes,
        )
        self.services = Services(
            settings=settings,
            database=database,
            tracker=self.tracker,
            runs=self.runs,
            streams=Streams(database, self.feed, self.log),
            subscriptions=Subscriptions(writer, guard, keyring),
            pinger=Pinger(self.test_sender, keyring),
            replays=replays,
            request_previews=RequestPreviews(database, keyring),
            authenticator=Authenticator(database),
            key_limits=KeyLimits(KeyLimit.of(*settings.key_requests)),
            idempotency=Idempotency(database, keyring),
            providers=self.providers,
            piapi=self.piapi,
        )

    def _loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "attend": self.task_worker.run,
            "dispatch": self.dispatcher.run,
            "replay": self.replayer.run,
            "cleanup": self.cleaner.run,
        }
        if self.shared is not None and self.log is not None:
            loops |= {"notices": self.shared.notices.run, "log": self.log.run}
        return loops

    def end_waits(self) -> None:
        """End streams and long polls: a server that stops waits for every connection before it ends the lifespan."""
        self.feed.close()
        self.waiting.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the loops going; at the end finish what is under way, within a bound, and give the rest back."""
        await self.services.streams.begin()
        supervisor = Supervisor(self._loops())
        supervisor.start()
        try:
            yield
        finally:
            await supervisor.stop()
            await self.runs.drain(_DRAIN_SECONDS)
            await self.tracker.drain(_DRAIN_SECONDS)
            await self.task_worker.drain(_DRAIN_SECONDS)
            await self.dispatcher.drain(_DRAIN_SECONDS)
            await self.sender.aclose()
            await self.test_sender.aclose()
            for provider in self.providers.values():
                await provider.aclose()


def create_app(settings: Settings, keys: list[str]) -> Starlette:
    """Return the service as an ASGI application; `keys` are the master keys, oldest first.

    Its database must have this version's schema already. Everything is opened and closed by its lifespan; whoever
    serves it calls `state.end_waits` before it waits for connections to close. Raises `SettingsError` where the
    actions file cannot be read.
    """
    actions = read_actions(settings.actions_file)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with await Database.open(settings) as database:
            if settings.is_sqlite:  # whoever held a lease is dead: the file is this process's alone
                await database.writer.run(lambda tx: end_leases(tx, utc_now()))
            service = Service(settings, database, keys, actions)
            app.state.services = service.services
            app.state.end_waits = service.end_waits
            app.router.routes.extend(routes(service.hooks))
            async with service.running():
                yield

    return Starlette(lifespan=lifespan, exception_handlers={HTTPException: refuse_path})


def _side_by_side(settings: Settings) -> int:
    """Return how many calls of one kind may wait for their turn at a provider: no more than get it in time."""
    in_time = settings.provider_calls_per_second * settings.provider_timeout_seconds / 4
    return max(1, min(SIDE_BY_SIDE, math.floor(in_time)))


def _poll_schedule(settings: Settings) -> PollSchedule:
    return PollSchedule(settings.poll_first_seconds, settings.poll_max_seconds, settings.task_timeout_seconds)


def _piapi(settings: Settings, database: Database) -> PiAPI:
    shared = database.shared.rate_limiter(PiAPI.name) if database.shared else None
    return PiAPI(
        base_url=settings.piapi_base_url,
        api_key=settings.piapi_api_key.get_secret_value() if settings.piapi_api_key else None,
        timeout=settings.provider_timeout_seconds,
        rate_limiter=RateLimiter(settings.provider_calls_per_second, shared=shared),
    )


def _shared_secrets(settings: Settings) -> dict[str, str]:
    secret = settings.piapi_webhook_secret
    return {PiAPI.name: secret.get_secret_value()} if secret is not None else {}
