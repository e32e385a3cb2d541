"""Builds the service from its parts, and runs it as an ASGI application."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from migrations import HEAD
from receiver.api.access_log import AccessLogMiddleware
from receiver.api.answer_headers import AnswerHeadersMiddleware
from receiver.api.application import Application
from receiver.api.auth import Authenticator
from receiver.api.change_limit import ChangeLimit
from receiver.api.cors import CorsMiddleware
from receiver.api.health import Health, Readiness
from receiver.api.idempotency import LEASE_SECONDS, Idempotency
from receiver.api.limits import KeyLimit, KeyLimits
from receiver.api.paths import PathMiddleware
from receiver.api.quotas import Quotas
from receiver.api.refusal_lines import RefusalLines
from receiver.api.routes import refuse_path, report_bug, routes
from receiver.api.services import Services
from receiver.body_budget import BodyBudget, default_body_bytes
from receiver.clock import utc_now
from receiver.dashboard.late import LateDashboard, refuse
from receiver.domain.actions import Actions
from receiver.domain.keyring import KeyRing
from receiver.domain.load_shares import LoadShares
from receiver.domain.predictions import Addresses
from receiver.domain.schedules import PollSchedule
from receiver.domain.sign_in import SignIn
from receiver.domain.task_explanations import TaskFacts
from receiver.events.after_commit import AfterCommit, Waiting, WakeTimer
from receiver.events.fan_out import FanOutWriter
from receiver.events.feed import Feed
from receiver.events.postgresql_log import PostgreSQLLog
from receiver.events.stream import Streams
from receiver.events.system import SystemEvents
from receiver.inbound.probe import ProbeEndpoint
from receiver.inbound.receive import InboundEndpoint
from receiver.loop_watchdog import LoopWatchdog
from receiver.mcp.endpoint import mcp_route
from receiver.outbound.alert_channels import AlertChannels, alert_channels
from receiver.outbound.deliver import Deliverer
from receiver.outbound.guard import AddressGuard
from receiver.outbound.message import MessageBuilder
from receiver.outbound.replays import Replays
from receiver.outbound.sender import Sender
from receiver.outbound.settle import Settler
from receiver.outbound.subscriptions import Subscriptions
from receiver.providers.registry import build_providers, shared_secrets
from receiver.reporting.reporter import Reporter
from receiver.reporting.statistics import Statistics
from receiver.runs.actions_file import read_actions
from receiver.runs.advance import Advancer
from receiver.runs.service import Runs
from receiver.settings import Settings
from receiver.stop_bound import WORK, StopBound
from receiver.storage.database import Database
from receiver.storage.key_rotation import KeyRotation
from receiver.storage.known_limits import KnownLimits
from receiver.storage.leases import end_leases
from receiver.storage.organization_usage import OrganizationUsage
from receiver.telemetry.exporting import exporting
from receiver.telemetry.exposition import exposition, shared_folder
from receiver.telemetry.own_process import note_build
from receiver.tracking.adopt import Adopter
from receiver.tracking.apply import Applier
from receiver.tracking.bulk_actions import BulkActions
from receiver.tracking.cancel import Canceller
from receiver.tracking.create import Creator
from receiver.tracking.explain import TaskExplainer
from receiver.tracking.poll import MissingRule, Poller
from receiver.tracking.provider_accounts import ProviderAccounts
from receiver.tracking.recall import RecalledTasks
from receiver.tracking.retry import Retrier
from receiver.tracking.stuck import StuckTasks
from receiver.tracking.submit import Submitter
from receiver.tracking.submit import lease_seconds as task_lease_seconds
from receiver.tracking.tracker import Tracker
from receiver.tracking.wait import TaskWaits
from receiver.workers.alerts import AlertWorker
from receiver.workers.bulk_action import BulkActionWorker
from receiver.workers.cleanup import Cleaner
from receiver.workers.clock_keeper import ClockKeeper
from receiver.workers.dispatch import DeliveryDispatcher
from receiver.workers.dispatch import lease_seconds as delivery_lease_seconds
from receiver.workers.fan_out import FanOutWorker
from receiver.workers.load_keeper import LoadKeeper
from receiver.workers.replay import ReplayWorker
from receiver.workers.sampler import Sampler
from receiver.workers.statistics import StatisticsWorker
from receiver.workers.supervisor import Supervisor
from receiver.workers.system_watch import SystemWatcher
from receiver.workers.task_worker import CONCURRENCY, TaskWorker

_CONNECTIONS = 1024
"""To subscribers, shared by organizations (`domain.shared_pool`)."""

_DELIVERED_SHARE = 2
"""Deliveries of large tasks may hold half as many bytes as request bodies may."""
_TEST_CONNECTIONS = 16
"""To webhooks that are tested. Separate from the others, so that testing endpoints that hang delays no delivery."""


class Service:
    """All parts of the service in one process."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        keys: list[str],
        actions: Actions,
        channels: AlertChannels,
        stop: StopBound,
    ) -> None:
        self._stop = stop
        writer, keyring = database.writer, KeyRing(keys)
        messages = MessageBuilder(keyring, _addresses(settings))
        task_lease = task_lease_seconds(settings.provider_timeout_seconds)
        delivery_lease = delivery_lease_seconds(settings.delivery_timeout_seconds)
        self.shared, self.upkeep = database.shared, database.upkeep
        self.known_limits = KnownLimits(database, settings.default_limits)
        self.usage = OrganizationUsage(database, self.known_limits.of)
        self.providers = build_providers(settings, self.shared.rate_limiter if self.shared else None)
        self.accounts = ProviderAccounts(database, keyring, self.providers)
        load_shares = LoadShares()
        self.load_keeper = LoadKeeper(load_shares, writer)
        self.dispatcher = DeliveryDispatcher(
            timeout=settings.delivery_timeout_seconds,
            connections=_CONNECTIONS,
            limits_of=self.known_limits.of,
            part=database.part,
            load_shares=load_shares,
        )
        self.feed, self.waiting = Feed(), Waiting()
        self.log = PostgreSQLLog(database, self.shared.notices, self.feed, self.waiting) if self.shared else None
        after_commit = AfterCommit(self.waiting, self.dispatcher, WakeTimer(), self.log or self.feed, delivery_lease)
        system_events = SystemEvents(after_commit, channels.fingerprints)
        self.system_watcher = SystemWatcher(writer, self.providers, system_events)
        self.alert_worker = AlertWorker(database, channels, system_events) if channels.fingerprints else None
        advancer = Advancer(after_commit.due, self.accounts.known.choose)
        applier = Applier(_poll_schedule(settings), after_commit, advancer, least_of=self.providers.least_poll_seconds)
        submitter = Submitter(database, applier, self.providers, keyring, settings.public_url, lease_seconds=task_lease)
        poller = Poller(
            database,
            applier,
            submitter,
            self.providers,
            keyring,
            unknown_seconds=settings.submission_unknown_seconds,
            failed_seconds=settings.failed_create_seconds,
            missing=MissingRule(settings.missing_polls, settings.missing_seconds),
            stuck=StuckTasks(writer, system_events, settings.stuck_seconds),
        )
        self.guard = guard = AddressGuard.from_settings(settings)
        self.sender = Sender(guard, timeout=settings.delivery_timeout_seconds, connections=_CONNECTIONS)
        self.test_sender = Sender(guard, timeout=settings.delivery_timeout_seconds, connections=_TEST_CONNECTIONS)
        self.dispatcher.connect(
            database,
            Deliverer(database, self.sender, Settler(system_events), messages, settings.retry_delays, _room(settings)),
        )
        self.task_worker = TaskWorker(
            writer, poller, after_commit.due, lease_seconds=task_lease, concurrency=_task_concurrency(settings)
        )
        self.tracker = Tracker(
            database,
            Creator(after_commit, lease_seconds=task_lease),
            submitter,
            poller,
            Canceller(writer, applier, self.providers),
            Retrier(after_commit),
            Adopter(database, applier, self.providers),
            self.waiting,
        )
        self.runs = Runs(database, after_commit, RecalledTasks(after_commit), actions, advancer)
        replays = Replays(
            database, self.dispatcher, retention_days=settings.retention_days, lease_seconds=delivery_lease
        )
        self.replay_worker = ReplayWorker(replays)
        quotas = Quotas(self.known_limits.of, self.usage, part=database.part, delivery_use=self.dispatcher.use_of)
        bulk_actions = BulkActions(
            database,
            self.tracker,
            quotas.begin_again,
            call_seconds=task_lease,
            calls_per_second=settings.provider_calls_per_second,
        )
        self.bulk_action_worker = BulkActionWorker(bulk_actions)
        self.fan_out_worker = FanOutWorker(
            database, FanOutWriter(after_commit), after_commit.pending_fan_outs, load_shares
        )
        self.clock_keeper = ClockKeeper(database, longest_lease=max(task_lease, delivery_lease, LEASE_SECONDS))
        self.cleaner = Cleaner(database, retention_days=settings.retention_days, audit_days=settings.audit_days)
        self.statistics_worker = StatisticsWorker(database)
        self.inbound = InboundEndpoint(
            database,
            applier,
            self.providers,
            self.accounts,
            keyring,
            probes=ProbeEndpoint(keyring, self.waiting, max_body_bytes=settings.max_body_bytes),
            shared_secrets=shared_secrets(settings),
            max_body_bytes=settings.max_body_bytes,
        )
        self.readiness = Readiness(database, lambda: stop.has_begun)
        self.sampler = Sampler(
            database,
            self.providers,
            self.readiness.fault,
            file=settings.sqlite_path if settings.is_sqlite else None,
            shared=shared_folder(),
        )
        self.services = Services(
            settings=settings,
            database=database,
            tracker=self.tracker,
            task_explainer=TaskExplainer(database, self.providers, _task_facts(settings)),
            task_waits=TaskWaits(database, self.waiting),
            runs=self.runs,
            streams=Streams(database, self.feed, self.log),
            subscriptions=Subscriptions(database, guard, keyring, messages),
            replays=replays,
            bulk_actions=bulk_actions,
            reporter=Reporter(database, retention_days=settings.retention_days),
            statistics=Statistics(database, self.providers, settings.provider_calls_per_second),
            messages=messages,
            test_sender=self.test_sender,
            authenticator=Authenticator(database, settings.wrong_key_tries),
            change_limit=ChangeLimit(),
            key_limits=KeyLimits(KeyLimit.of(*settings.key_requests), part=database.part),
            idempotency=Idempotency(database, keyring, self.known_limits.of),
            providers=self.providers,
            accounts=self.accounts,
            piapi=self.providers.piapi,
            known_limits=self.known_limits,
            load_shares=load_shares,
            refusals=RefusalLines(),
            key_rotation=KeyRotation(database, keyring, timeout_seconds=settings.task_timeout_seconds),
            sign_in=SignIn(keyring),
            quotas=quotas,
        )

    def _loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "tasks": self.task_worker.run,
            "deliveries": self.dispatcher.run,
            "replays": self.replay_worker.run,
            "bulk actions": self.bulk_action_worker.run,
            "fan-out": self.fan_out_worker.run,
            "cleanup": self.cleaner.run,
            "clock": self.clock_keeper.run,
            "open tasks": self.usage.count_tasks,
            "stored bytes": self.usage.sum_bytes,
            "keys": self.services.authenticator.in_use.run,
            # Also where no other process changes them: to read a change of this one may have failed.
            "known accounts": self.accounts.known.run,
            "loop": self.load_keeper.run,
            "system events": self.system_watcher.run,
            "metrics": self.sampler.run,
            "statistics": self.statistics_worker.run,
        }
        if self.shared is not None and self.log is not None:
            loops |= {"notices": self.shared.notices.run, "log": self.log.run, "limits": self.shared.limits.run}
            loops["known limits"] = self.known_limits.run  # on SQLite no other process changes them
        if self.alert_worker is not None:
            loops["alerts"] = self.alert_worker.run
        if self.upkeep is not None:
            loops["upkeep"] = self.upkeep.run
        return loops

    def end_waits(self) -> None:
        """End streams and long polls. A server that stops waits for all connections before it ends the lifespan."""
        self._stop.begin()
        self.feed.close()
        self.waiting.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops; at the end finish the work in progress, in bounded time, and end the leases of the rest."""
        await self.services.streams.begin()
        await self.known_limits.refresh()
        await self.accounts.known.refresh()
        supervisor = Supervisor(self._loops())
        supervisor.start()
        try:
            yield
        finally:
            await supervisor.stop()
            await self._finish()
            await self.sender.aclose()
            await self.test_sender.aclose()
            await self.guard.aclose()
            await self.providers.aclose()

    async def _finish(self) -> None:
        """Finish what is under way while there is time for it. Each waits for what the one before may have begun."""
        await self.tracker.drain(self._stop.seconds_until(WORK))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop.seconds_until(WORK)):
                await self.services.authenticator.in_use.drain()
        await self.task_worker.drain(self._stop.seconds_until(WORK))
        await self.dispatcher.drain(self._stop.seconds_until(WORK))


def create_app(
    settings: Settings, keys: list[str], stop: StopBound | None = None, *, metrics_apart: bool = False
) -> Starlette:
    """Return the service as an ASGI application; `keys` are the master keys, oldest first.

    The database must have this version's schema. The lifespan opens and closes everything, and ends within `stop`; the
    service is not ready from when that has begun. The server has to call `state.end_waits` before it waits for
    connections to close. `metrics_apart` says that a socket was passed for metrics, which the settings do not tell.
    Raises `SettingsError` if the actions file, or a URL for alerts, is wrong.
    """
    actions, channels = read_actions(settings.actions_file, settings.providers_dir), alert_channels(settings)
    bound = stop or StopBound(settings.stop_seconds)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        exports = exporting(bound, tracing=settings.tracing, sentry_dsn=settings.reports_to)
        async with exports, await Database.open(settings) as database:
            service = Service(settings, database, keys, actions, channels, bound)
            await service.clock_keeper.begin()
            if settings.is_sqlite:  # only this process has the file: a process that held a lease has ended
                await database.writer.run(lambda tx: end_leases(tx, utc_now()))
            note_build("sqlite" if settings.is_sqlite else "postgresql", HEAD)
            app.state.services = service.services
            app.state.inbound = service.inbound
            app.state.readiness = service.readiness
            app.state.health = Health(service.readiness.fault, exposition, settings.metrics_secret)
            app.state.end_waits = service.end_waits
            with LoopWatchdog().watching():
                async with service.running():
                    yield

    of_programs = routes(with_metrics=settings.metrics_address is None and not metrics_apart)
    app = Application(
        direct=not settings.access_log,  # it sees all requests
        # The busiest first, for they are tried in order.
        routes=[*of_programs, mcp_route()],
        middleware=_middleware(settings),
        lifespan=lifespan,
        exception_handlers={HTTPException: refuse if settings.dashboard else refuse_path, Exception: report_bug},
    )
    app.state.described_routes = of_programs
    app.router.redirect_slashes = False  # `PathMiddleware` has removed them
    if settings.dashboard:
        LateDashboard(app.router)
    return app


def _middleware(settings: Settings) -> list[Middleware]:
    """Return what every request passes, the outermost first."""
    middleware = [Middleware(AnswerHeadersMiddleware), Middleware(PathMiddleware)]
    if settings.access_log:
        middleware.insert(0, Middleware(AccessLogMiddleware))
    if settings.allowed_origins:
        middleware.append(Middleware(CorsMiddleware, origins=settings.allowed_origins))
    return middleware


def _room(settings: Settings) -> BodyBudget:
    """Return the budget for deliveries of large tasks. One waits for room no longer than an attempt may take."""
    most = settings.bodies_in_flight_bytes or default_body_bytes()
    return BodyBudget(most // _DELIVERED_SHARE, settings.delivery_timeout_seconds, lambda: None)


def _task_concurrency(settings: Settings) -> int:
    """Return how many calls of one kind may wait for the provider's rate limit: as many as it lets through in time."""
    in_time = settings.provider_calls_per_second * settings.provider_timeout_seconds / 4
    return max(1, min(CONCURRENCY, math.floor(in_time)))


def _addresses(settings: Settings) -> Addresses | None:
    return None if settings.public_url is None else Addresses(settings.public_url, settings.dashboard)


def _poll_schedule(settings: Settings) -> PollSchedule:
    return PollSchedule(
        settings.poll_first_seconds,
        settings.poll_max_seconds,
        settings.task_timeout_seconds,
        settings.task_limit_seconds,
    )


def _task_facts(settings: Settings) -> TaskFacts:
    """Return what the explanations of all tasks follow from."""
    return TaskFacts(
        now=utc_now(),
        schedule=_poll_schedule(settings),
        unknown_seconds=settings.submission_unknown_seconds,
        failed_seconds=settings.failed_create_seconds,
        missing_polls=settings.missing_polls,
        calls_per_second=settings.provider_calls_per_second,
        has_public_url=settings.public_url is not None,
    )
