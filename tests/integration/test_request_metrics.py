"""What the metrics show of requests, of a task's way from webhook to subscriber, of ends and of failed deliveries."""

import asyncio
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route
from structlog.testing import capture_logs

from models import TaskStatus
from receiver.api.routes import routes
from receiver.dashboard import routes as dashboard
from receiver.mcp.endpoint import mcp_route
from receiver.telemetry.request_ids import begin_request
from tests.fakes.world import World
from tests.integration.harness import tracking
from tests.integration.run_harness import RunHarness
from tests.integration.test_tracking_outcomes import PollingHarness

CALLS = "ringback_http_request_duration_seconds"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"ringback_{name}", labels) or 0.0


async def label_values(world: World, *names: str) -> set[tuple[str, ...]]:
    """Return the labels of the requests that the service has timed."""
    families = text_string_to_metric_families((await world.api.get("/metrics")).text)
    (family,) = [each for each in families if each.name == CALLS]
    return {tuple(sample.labels[name] for name in names) for sample in family.samples}


async def test_requests_are_timed_by_route_and_nothing_that_a_client_chose_is_a_label(world: World) -> None:
    task_id = await world.created()
    for method, path in (
        ("GET", f"/api/v1/task/{task_id}"),
        ("GET", "/api/v1/tasks/one%2Ftwo"),
        ("POST", "/hooks/unknown/x"),
        ("PROPFIND", "/api/v1/tasks"),
        ("GET", "/nothing/at/all"),
        ("POST", f"/hooks/piapi/{task_id}"),
    ):
        await world.api.request(method, path)
    found = await label_values(world, "route", "method", "status")
    served = [*routes(), mcp_route(), *dashboard.routes()]
    assert {route for route, _, _ in found} <= {each.path for each in served if isinstance(each, Route)} | {"unmatched"}
    assert {method for _, method, _ in found} <= {"GET", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "PUT", "other"}
    assert {status for _, _, status in found} <= {"2xx", "3xx", "4xx", "5xx"}
    for expected in (
        ("/api/v1/task/{task_id}", "GET", "2xx"),
        ("/api/v1/tasks", "other", "4xx"),
        ("/hooks/{provider}/{task_id}", "POST", "4xx"),
        ("unmatched", "GET", "4xx"),
    ):
        assert expected in found


async def until_above(world: World, before: float, name: str, **labels: str) -> None:
    """Wait until a value has risen above `before`, with a request between two looks. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while value(name, **labels) <= before:
            await world.api.get("/livez")


async def test_an_end_by_a_webhook_is_counted_and_timed_until_a_subscriber_has_it(world: World) -> None:
    ends = {"provider": "piapi", "status": "completed", "source": "webhook"}
    told, ended = value("webhook_to_told_seconds_count", by="delivery"), value("tasks_ended_total", **ends)
    calls = {"provider": "piapi", "call": "submit", "outcome": "accepted"}
    called, turned = (
        value("provider_call_duration_seconds_count", **calls),
        value("provider_turns_total", provider="piapi"),
    )
    delivered, committed = value("delivery_attempts_total", outcome="delivered"), value("commit_duration_seconds_count")
    await world.webhook(event_types=["task.completed"])
    await world.ended(await world.created())
    await until_above(world, told, "webhook_to_told_seconds_count", by="delivery")
    await until_above(world, delivered, "delivery_attempts_total", outcome="delivered")
    assert value("tasks_ended_total", **ends) == ended + 1
    assert value("provider_call_duration_seconds_count", **calls) == called + 1
    assert value("provider_turns_total", provider="piapi") > turned
    assert value("commit_duration_seconds_count") > committed


async def test_an_end_is_timed_until_a_stream_has_it(world: World) -> None:
    told = value("webhook_to_told_seconds_count", by="stream")
    async with world.api.stream("GET", "/api/v1/events", headers={"accept": "text/event-stream"}) as stream:
        lines = stream.aiter_lines()
        await anext(lines)  # it follows from now on
        await world.created()
        async for line in lines:
            if line == "event: task.completed":
                break
    await until_above(world, told, "webhook_to_told_seconds_count", by="stream")


async def test_an_end_that_no_provider_brought_is_counted_as_ringbacks_own_and_logged_once(tmp_path: Path) -> None:
    def counted() -> list[float]:
        own = {"provider": "piapi", "source": "ringback"}
        return [value("tasks_ended_total", status=status, **own) for status in ("failed", "cancelled")]

    with capture_logs() as records:
        async with tracking(tmp_path) as tracked:
            failed, cancelled = counted()
            polling, runs = PollingHarness(tracked), RunHarness(tracked)
            uid = await tracked.create()
            await tracked.receive(TaskStatus.PROCESSING, uid)
            await polling.age(uid)
            await polling.act_on(uid)
            async with asyncio.timeout(10):
                while counted() == [failed, cancelled]:  # noqa: ASYNC110 - the log record comes after the answer
                    await asyncio.sleep(0.001)
            assert counted() == [failed + 1, cancelled]
            run = await runs.begin("a")
            begin_request(b"cancels")
            await runs.cancel(run)
            assert counted() == [failed + 1, cancelled + 1]
    ends = [each for each in records if each["event"] == "task ended"]
    assert [(each["state"], each.get("request_id")) for each in ends] == [("failed", None), ("cancelled", "cancels")]


async def test_a_failed_attempt_is_counted_as_failed_although_its_delivery_is_pending(world: World) -> None:
    world.subscriber.answer = lambda _number, _request: 500
    failed = value("delivery_attempts_total", outcome="failed")
    await world.webhook(event_types=["task.created"])
    await world.created()
    await until_above(world, failed, "delivery_attempts_total", outcome="failed")
    assert REGISTRY.get_sample_value("ringback_delivery_attempts_total", {"outcome": "pending"}) is None
    assert value("delivery_attempt_duration_seconds_count", outcome="failed") > 0
