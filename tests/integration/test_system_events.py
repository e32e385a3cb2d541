"""System events: what an operator should know is told once while it lasts, to subscribers and to channels."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select as sql_select
from sqlalchemy import update
from structlog.testing import capture_logs

from models import SYSTEM_EVENTS, EventType, TaskStatus
from receiver.clock import utc_now
from receiver.domain import schedules
from receiver.domain.system_events import PAUSED_SECONDS, storage_unavailable
from receiver.errors import SettingsError, StorageUnavailable
from receiver.events.system import SystemEvents, system_event
from receiver.outbound.alert_channels import AlertChannels, alert_channels
from receiver.providers import Providers, ProviderTask
from receiver.providers.accounts import ProviderAccount
from receiver.providers.piapi import PiAPI
from receiver.settings import load_settings
from receiver.storage.tables import events, system_conditions, tasks
from receiver.workers import system_watch
from receiver.workers.alerts import AlertWorker
from receiver.workers.cleanup import Cleaner
from receiver.workers.system_watch import SystemWatcher
from tests.fakes.rows import ATTEMPTS, DELIVERIES, change, eventually
from tests.fakes.subscriber import ReceivedDelivery, listening
from tests.fakes.world import World, in_process
from tests.integration.harness import STUCK, TrackingHarness, arrival, tracking
from tests.integration.scripted_piapi import TASK, FakeServer, opened, reply
from tests.integration.test_tracking_outcomes import PollingHarness, SilentProvider

pytestmark = pytest.mark.filterwarnings("ignore:.imghdr. is deprecated:DeprecationWarning")  # Apprise imports it

BY_HAND = {"outcome": "never", "webhook": "lost"}
OPERATOR = "/operator"
OFTEN = ",".join(["0", *["0.05"] * 50])
TWICE = "0,0.05"


class Provider(SilentProvider):
    """A provider whose pause and refusal of the key a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.pause = 0.0
        self.refusal: str | None = None

    def paused_for(self) -> float:
        return self.pause

    def key_refusal(self) -> str | None:
        return self.refusal


class Watching:
    """A watcher of one provider, on a real database."""

    def __init__(self, harness: TrackingHarness, over_after_seconds: float = 600.0) -> None:
        self.harness = harness
        self.provider = Provider()
        writer = harness.database.writer
        self.of_account = Provider()
        providers = Providers({"piapi": self.provider}, lambda _: self.of_account)
        self.providers = providers
        self.watcher = SystemWatcher(writer, providers, harness.system_events, over_after_seconds=over_after_seconds)

    async def told(self) -> list[dict[str, Any]]:
        await self.watcher.look()
        return await system_events(self.harness)


async def system_events(harness: TrackingHarness) -> list[dict[str, Any]]:
    rows = await harness.database.read(sql_select(events).order_by(events.c.id))
    return [{"type": row["type"], **row["snapshot"]} for row in rows if row["type"] in SYSTEM_EVENTS]


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[TrackingHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield harness


async def operator(world: World) -> None:
    await world.webhook(endpoint_url=world.subscriber.base + OPERATOR, event_types=["system.*"])


def told(received: list[ReceivedDelivery]) -> list[Any]:
    return [each.json for each in received if each.path == OPERATOR]


async def test_what_concerns_an_organization_s_account_is_told_to_it_alone(harness: TrackingHarness) -> None:
    await harness.organization("default")  # which owns the account of the environment
    owner = await harness.organization("acme")

    async def read(key: int) -> ProviderAccount:
        return ProviderAccount(provider="piapi", name="own", uid=f"the-id-{key}", organization_id=owner)

    watching = Watching(harness)
    watching.providers.connect(read)
    await watching.providers.of("piapi", 7)
    watching.of_account.refusal = "the key is wrong"
    for _ in range(2):
        (told,) = await watching.told()
    assert told == {
        "type": "provider.unauthorized",
        "provider": "piapi",
        "account": "own",
        "message": "the key is wrong",
    }
    rows = await harness.database.read(sql_select(events.c.organization_id))
    assert [row["organization_id"] for row in rows] == [owner]


async def test_a_webhook_that_fails_for_long_is_told_once_and_again_after_it_worked(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=OFTEN) as world:
        works = asyncio.Event()
        world.subscriber.answer = lambda _number, request: (
            200 if request.url.path == OPERATOR or works.is_set() else 500
        )
        await operator(world)
        failing = await world.webhook(event_types=["task.created"])
        await world.created(BY_HAND)
        await eventually(world, ATTEMPTS, lambda rows: len(rows) >= 2)
        assert told(world.subscriber.received) == [], "it may just have been restarted"
        await for_long(world)
        await world.subscriber.until(told)
        so_far = len(world.subscriber.received)
        await world.subscriber.until(lambda received: len(received) >= so_far + 3)
        works.set()
        await eventually(world, DELIVERIES, lambda rows: all(row["status"] == "delivered" for row in rows))
        works.clear()
        await world.created(BY_HAND)
        await for_long(world)
        await world.subscriber.until(lambda received: len(told(received)) == 2)
        first, second = told(world.subscriber.received)
        assert {first["type"], second["type"]} == {"webhook.failing"}
        assert first["data"]["webhook"]["id"] == second["data"]["webhook"]["id"] == failing["id"]


async def for_long(world: World) -> None:
    """Let the webhook that fails have done so for 11 minutes; its first failure is awaited."""
    await eventually(world, "SELECT uid FROM subscription WHERE failing_since IS NOT NULL", bool)
    moment = (datetime.now(UTC) - timedelta(minutes=11)).replace(tzinfo=None).isoformat(" ", "microseconds")
    change(world, "UPDATE subscription SET failing_since = ? WHERE failing_since IS NOT NULL", moment)


async def test_a_delivery_that_is_given_up_is_told_and_that_of_a_system_event_is_not(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=TWICE) as world:
        world.subscriber.answer = lambda _number, request: 200 if request.url.path == OPERATOR else 500
        await operator(world)
        dying = await world.webhook(event_types=["task.created", "system.*"])
        task_id = await world.created(BY_HAND)
        rows = await eventually(world, DELIVERIES, lambda rows: [row["status"] for row in rows].count("dead") == 2)
        assert len(rows) == 3, "the death of the news is no news"
        (notice,) = told(world.subscriber.received)
        delivery = notice["data"]["delivery"]
        assert notice["type"] == "delivery.dead"
        assert (delivery["webhook_id"], delivery["task_id"]) == (dying["id"], task_id)
        assert (delivery["event_type"], delivery["attempts"], delivery["status_code"]) == ("task.created", 2, 500)


async def test_a_long_pause_of_a_provider_is_told_once_and_a_short_one_not(harness: TrackingHarness) -> None:
    watching = Watching(harness)
    watching.provider.pause = PAUSED_SECONDS - 1
    assert await watching.told() == []
    watching.provider.pause = 60
    (paused,) = await watching.told()
    assert (paused["type"], paused["provider"], paused["seconds"]) == ("provider.paused", "piapi", 60)
    assert len(await watching.told()) == 1
    assert len(await Watching(harness).told()) == 1, "another process, or this one after a restart"


async def test_a_refused_key_is_told_to_the_owners_of_the_account_and_again_when_it_was_right(
    harness: TrackingHarness,
) -> None:
    await harness.organization("another")
    watching = Watching(harness, over_after_seconds=0.0)
    watching.provider.refusal = "it is wrong"
    (refused,) = await watching.told()
    assert (refused["type"], refused["message"]) == ("provider.unauthorized", "it is wrong")
    assert [row["organization_id"] for row in await harness.database.read(sql_select(events))] == [1]
    watching.provider.refusal = None
    assert len(await watching.told()) == 1
    watching.provider.refusal = "it is wrong again"
    assert [each["message"] for each in await watching.told()] == ["it is wrong", "it is wrong again"]


async def test_the_adapter_remembers_a_refused_key_until_a_call_succeeds(piapi: PiAPI, server: FakeServer) -> None:
    assert piapi.key_refusal() is None
    server.responds(reply(401, {"code": 401, "message": "invalid api key"}))
    await piapi.submit(TASK)
    assert "RINGBACK_PIAPI_API_KEY is missing or wrong (invalid api key)" in (piapi.key_refusal() or "")
    server.responds(reply(500, {"code": 500, "message": "it is down"}))
    await piapi.fetch(ProviderTask("some-task"), attempt=1)
    assert piapi.key_refusal() is None


async def test_a_key_that_is_not_set_is_told_when_it_is_needed(server: FakeServer) -> None:
    async with opened(server.url, api_key="") as adapter:
        assert adapter.key_refusal() is None
        await adapter.submit(TASK)
        assert "set RINGBACK_PIAPI_API_KEY" in (adapter.key_refusal() or "")


async def test_an_outage_of_the_database_is_told_when_it_is_over(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_watch, "_SHORTEST_OUTAGE_SECONDS", 0.0)
    watching = Watching(harness)
    began = utc_now()
    with monkeypatch.context() as broken:
        broken.setattr(harness.database.writer, "_begin_optimistic", None)
        broken.setattr(harness.database.writer._connection, "begin", _unavailable)
        with pytest.raises(StorageUnavailable):
            await harness.create()
    assert await watching.told() == [], "nothing was stored since"
    await harness.create()
    (outage,) = await watching.told()
    assert outage["type"] == "storage.unavailable"
    assert began.isoformat() <= outage["since"] <= outage["until"]
    assert len(await watching.told()) == 1


async def _unavailable(**_: Any) -> None:
    raise StorageUnavailable("the disk is full just now")


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_task_that_has_not_changed_for_long_is_told_once(tmp_path: Path, is_answered: bool) -> None:
    with capture_logs():
        async with tracking(tmp_path) as tracked:
            polling = PollingHarness(tracked)
            uid = await tracked.create()
            applied = await tracked.receive(TaskStatus.PROCESSING, uid)
            assert applied.changed
            if is_answered:
                polling.provider.found = arrival(TaskStatus.PROCESSING, uid).update
            for hours in (0.5, 1.5, 2.5):
                then = utc_now() - timedelta(hours=hours)
                await _set_times(tracked, uid, last_update_at=then, updated_at=then, due_at=utc_now())
                await polling.act_on(uid)
                assert len(await system_events(tracked)) == (hours * 3600 > STUCK)
            (stuck,) = await system_events(tracked)
            assert (stuck["type"], stuck["task"]["task_id"]) == ("task.stuck", uid)
            assert stuck["task"]["status"] == "processing"


async def _set_times(tracked: TrackingHarness, uid: str, **values: Any) -> None:
    await tracked.database.writer.run(lambda tx: tx.execute(update(tasks).where(tasks.c.uid == uid).values(values)))


async def test_what_was_told_long_ago_is_forgotten(harness: TrackingHarness) -> None:
    watching = Watching(harness)
    watching.provider.refusal = "it is wrong"
    await watching.told()
    await Cleaner(harness.database, retention_days=1).clean(utc_now() + timedelta(days=2))
    assert await harness.database.read(sql_select(system_conditions)) == []


async def test_a_webhook_may_subscribe_to_system_events_and_sees_which(world: World) -> None:
    webhook = await world.webhook(event_types=["system.*"])
    assert set(webhook["event_types"]) == {
        "webhook.failing",
        "webhook.disabled",
        "delivery.dead",
        "provider.paused",
        "provider.unauthorized",
        "storage.unavailable",
        "task.stuck",
    }
    every = await world.webhook(event_types=["task.*"])
    assert EventType.TASK_STUCK not in every["event_types"]


async def test_alerts_go_to_the_operators_channels_until_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_FIRST_ALERT", 0.01)
    monkeypatch.setattr(AlertWorker.__init__, "__kwdefaults__", {"pause_seconds": 0.0})
    async with listening() as channel, listening() as broken:
        urls = ", ".join(f"json://{each.base.removeprefix('http://')}/alerts" for each in (channel, broken))
        channel.answer = lambda number, _request: 500 if number == 1 else 200
        broken.answer = lambda _number, _request: 500
        async with in_process(tmp_path, retry_schedule=TWICE, alert_urls=urls) as world:
            world.subscriber.answer = lambda _number, _request: 500
            await world.webhook(event_types=["task.created"])
            await world.created(BY_HAND)
            await channel.until(lambda received: received and received[-1].status == 200)
            await broken.until(lambda received: len(received) >= 3)
            await eventually(world, "SELECT channel FROM alert", lambda rows: len(rows) == 1)
        assert [each.status for each in channel.received] == [500, 200], "each channel gets it once"
        alert = channel.received[-1].json
        assert alert["title"] == "Ringback: delivery.dead"
        assert "was given up after 2 attempts: status 500" in alert["message"]


async def test_alerts_that_come_together_are_one_message(harness: TrackingHarness) -> None:
    channels = NotedChannels()
    recorded = SystemEvents(harness.applier.after_commit, channels.fingerprints)
    now = utc_now()
    many = [system_event(EventType.STORAGE_UNAVAILABLE, 1, storage_unavailable(now, now), now) for _ in range(30)]
    for number, event in enumerate(many):
        event.snapshot["seconds"] = number
    await harness.database.writer.run(lambda tx: recorded.record(tx, many, now))
    worker = asyncio.create_task(AlertWorker(harness.database, channels, recorded).run())
    title, body = await channels.sent.get()
    worker.cancel()
    assert title == "Ringback: 30 system events"
    assert len(body.splitlines()) == 21
    assert body.splitlines()[-1] == "... and 10 more"


class NotedChannels(AlertChannels):
    """One channel that notes what it is sent."""

    def __init__(self) -> None:
        super().__init__({"a-channel": None})
        self.sent: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def send(self, channel: str, title: str, body: str) -> bool:
        self.sent.put_nowait((title, body))
        return True


@pytest.mark.parametrize(
    ("urls", "fault"),
    [
        ("json://localhost, nonsense://planted-token", "URL 2 of 2 is none that Apprise understands"),
        ("planted-token", "URL 1 of 1 is none that Apprise understands"),
    ],
)
def test_a_wrong_channel_stops_the_start_and_is_not_repeated(urls: str, fault: str) -> None:
    settings = load_settings({"RINGBACK_ALERT_URLS": urls}, env_file=None)
    with pytest.raises(SettingsError) as caught:
        alert_channels(settings)
    assert str(caught.value) == f"RINGBACK_ALERT_URLS: {fault}"


def test_without_apprise_the_start_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    settings = load_settings({"RINGBACK_ALERT_URLS": "json://localhost"}, env_file=None)
    with pytest.raises(SettingsError, match=r"pip install 'ringback\[apprise\]'"):
        alert_channels(settings)
