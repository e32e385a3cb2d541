"""Traces: a client's `traceparent` through the task to its subscribers, with and without spans of the service's own."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import SettingsError
from receiver.stop_bound import StopBound
from receiver.telemetry.exporting import check_exports, exporting
from receiver.telemetry.tracing import span
from tests.fakes.collectors import Collected, otlp_collector
from tests.fakes.databases import outside
from tests.fakes.inbound import PICTURE, SILENT, notice, post
from tests.fakes.pipeline import ACTIONS, begin, ended, step
from tests.fakes.world import World, in_process, in_processes

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"
OF_PROVIDER = f"00-{'ab' * 16}-{'cd' * 8}-01"
SECRET_WORDS = "a cat that no trace may show"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collected]:
    async with otlp_collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        yield collected


async def create(world: World, traceparent: str | None, path: str = "/api/v1/task", **fields: Any) -> Any:
    task = {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": SECRET_WORDS}, **fields}
    body = {"tasks": [task, task]} if path.endswith("tasks") else task
    answer = await world.api.post(path, json=body, headers={} if traceparent is None else {"traceparent": traceparent})
    assert answer.is_success, answer.text
    return answer.json()["data"]


def kept_by(world: World, task_id: str) -> str | None:
    with outside(world.database) as connection:
        (kept,) = connection.execute("SELECT trace_context FROM task WHERE uid = ?", (task_id,)).fetchone()
        return None if kept is None else str(kept)


async def test_one_trace_leads_from_the_clients_request_to_its_subscriber(tmp_path: Path, collector: Collected) -> None:
    async with in_process(tmp_path, tracing="true") as world:
        await world.webhook(event_types=["task.completed"])
        task_id = (await create(world, GIVEN, input={"prompt": SECRET_WORDS, "sandbox": SILENT}))["task_id"]
        created, submitted = await collector.named("create task", "submit task")
        provider_task_id = (await world.task(task_id))["provider_task_id"]
        body = notice(provider_task_id, "completed", output=PICTURE)
        assert (await post(world, task_id, json=body, traceparent=OF_PROVIDER)).status_code == 200
        received, delivered = await collector.named("receive webhook", "deliver event")
        await world.subscriber.until(len)

    assert {each.trace_id for each in collector.items} == {TRACE}
    assert (created.parent_id, created.kind) == (PARENT, "SERVER")
    assert (submitted.parent_id, submitted.kind) == (created.span_id, "CLIENT")
    assert (received.parent_id, received.kind) == (created.span_id, "SERVER")
    assert received.links == [("ab" * 16, "cd" * 8)]
    assert (delivered.parent_id, delivered.kind) == (created.span_id, "CLIENT")
    (delivery,) = world.subscriber.received
    assert delivered.is_named_by(delivery.headers["traceparent"])
    for each in (created, submitted, received, delivered):
        assert each.attributes["ringback.task_id"] == task_id
        assert not each.failed
        assert SECRET_WORDS not in repr(each)
    assert submitted.attributes["ringback.provider_task_id"] == provider_task_id
    assert delivered.attributes["http.response.status_code"] == 200
    assert created.resource["service.name"] == "ringback"
    assert created.resource["service.version"]


async def test_a_task_without_a_context_begins_a_trace_and_its_polls_and_failures_are_in_it(
    tmp_path: Path, collector: Collected
) -> None:
    async with in_process(tmp_path, tracing="true") as world:
        world.subscriber.answer = lambda number, _: 503 if number == 1 else 200
        await world.webhook(event_types=["task.cancelled"])
        task_id = (await create(world, None, input={"prompt": "p", "sandbox": SILENT | {"pending_seconds": 60}}))[
            "task_id"
        ]
        await world.api.post(f"/api/v1/tasks/{task_id}/refresh")
        await world.api.post(f"/api/v1/tasks/{task_id}/cancel")
        await world.subscriber.until(lambda received: len(received) == 2)
        created, polled, cancelled = await collector.named("create task", "poll task", "cancel task")
        await collector.until(lambda spans: len([each for each in spans if each.name == "deliver event"]) == 2)

    assert created.parent_id == ""
    assert {(each.trace_id, each.parent_id) for each in collector.items if each is not created} == {
        (created.trace_id, created.span_id)
    }
    assert (polled.kind, cancelled.kind) == ("CLIENT", "CLIENT")
    first, second = [each for each in collector.items if each.name == "deliver event"]
    assert (first.failed, first.attributes["error.type"], second.failed) == (True, "503", False)
    assert first.is_named_by(world.subscriber.received[0].headers["traceparent"])
    assert second.is_named_by(world.subscriber.received[1].headers["traceparent"])


async def test_a_create_that_fails_is_a_failed_span_and_its_search_is_in_the_same_trace(
    tmp_path: Path, collector: Collected
) -> None:
    async with in_process(tmp_path, tracing="true", submit_wait_seconds="0.1") as world:
        await world.provider_options(submit_status=500)
        task_id = (await create(world, GIVEN))["task_id"]
        submitted, searched = await collector.named("submit task", "search task")

    assert {each.trace_id for each in collector.items} == {TRACE}
    assert (submitted.failed, submitted.attributes["error.type"]) == (True, "UnknownOutcome")
    assert submitted.attributes["http.response.status_code"] == 500
    assert (searched.failed, searched.attributes["ringback.task_id"]) == (False, task_id)


async def test_the_tasks_and_events_of_a_run_are_in_its_trace(tmp_path: Path, collector: Collected) -> None:
    async with in_process(tmp_path, tracing="true", actions_file=str(ACTIONS)) as world:
        await world.webhook(event_types=["run.completed"])
        world.api.headers["traceparent"] = GIVEN
        run_id = await begin(world, step("a"), step("b", "a"))
        del world.api.headers["traceparent"]
        await ended(world, run_id)
        await world.subscriber.until(len)
        created, delivered = await collector.named("create run", "deliver event")
        await collector.until(lambda spans: len([each for each in spans if each.name == "submit task"]) == 2)

    assert (created.parent_id, created.attributes["ringback.run_id"]) == (PARENT, run_id)
    assert {each.trace_id for each in collector.items} == {TRACE}
    assert {each.parent_id for each in collector.items if each is not created} == {created.span_id}
    assert delivered.is_named_by(world.subscriber.received[0].headers["traceparent"])


async def test_without_tracing_the_context_is_passed_on_unchanged_in_every_format(tmp_path: Path) -> None:
    async with in_process(tmp_path, actions_file=str(ACTIONS)) as world:
        for form in ("standard", "pi", "piapi", "cloudevents"):
            await world.webhook(event_types=["task.completed", "run.completed"], format=form)
        await create(world, GIVEN)
        await create(world, GIVEN, "/api/v1/tasks")
        world.api.headers["traceparent"] = GIVEN
        await begin(world, step("a"))
        await world.subscriber.until(lambda received: len(received) == 20)  # of four tasks and a run
        assert {each.headers.get("traceparent") for each in world.subscriber.received} == {GIVEN}


async def test_a_task_that_is_adopted_keeps_the_trace_of_its_adoption(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        task = {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"sandbox": SILENT}}
        made = (await world.provider.post("/api/v1/task", json=task)).json()["data"]["task_id"]
        body = {"provider": "piapi", "provider_task_id": made}
        answer = await world.api.post("/api/v1/tasks/adopt", json=body, headers={"traceparent": GIVEN})
        assert answer.status_code == 200, answer.text
        assert kept_by(world, answer.json()["data"]["task_id"]) == GIVEN


async def test_a_users_own_header_of_that_name_is_kept_and_wrong_ones_are_ignored(tmp_path: Path) -> None:
    wrong = [f"{GIVEN}-more", "nonsense"]
    async with in_process(tmp_path) as world:
        await world.webhook(event_types=["task.completed"], headers={"TraceParent": "mine"})
        await create(world, GIVEN)
        await world.subscriber.until(len)
        for each in wrong:
            assert kept_by(world, (await create(world, each))["task_id"]) is None, each
    assert world.subscriber.received[0].headers["traceparent"] == "mine"


@pytest.mark.sqlite_only("is the same with any database")
async def test_a_stop_sends_the_spans_that_wait(
    tmp_path: Path, collector: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    async with in_processes(tmp_path, tracing="true") as world:
        await world.created(SILENT)
        assert collector.items == []
        assert await world.stop() == 0
    assert {"create task", "submit task"} <= {each.name for each in collector.items}
    assert collector.items[0].resource["service.name"] == "ours"


@pytest.mark.no_database("stops what sends spans alone")
async def test_a_stop_waits_for_no_collector_that_does_not_answer(
    collector: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    collector.hold.clear()
    async with asyncio.timeout(20):
        async with exporting(StopBound(0.1), tracing=True, sentry_dsn=None):
            with span("a span", GIVEN, "CLIENT"):
                pass
        await collector.asked.wait()  # it is asked, and has not answered


@pytest.mark.no_database("starts nothing")
def test_without_the_packages_the_start_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    monkeypatch.setitem(sys.modules, "sentry_sdk.utils", None)
    with pytest.raises(SettingsError, match=r"pip install 'ringback\[otel\]'"):
        check_exports(tracing=True, sentry_dsn=None)
    with pytest.raises(SettingsError, match=r"pip install 'ringback\[sentry\]'"):
        check_exports(tracing=False, sentry_dsn="http://key@127.0.0.1/1")


@pytest.mark.no_database("starts nothing")
def test_a_wrong_variable_of_opentelemetry_stops_the_start_and_none_is_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a-key-Wq8xZr3T")
    check_exports(tracing=True, sentry_dsn=None)
    assert "invalid" in caplog.text
    assert "Wq8xZr3T" not in caplog.text
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")  # less than what is sent at once
    with pytest.raises(SettingsError, match=r"RINGBACK_TRACING: an OTEL_\* variable is wrong"):
        check_exports(tracing=True, sentry_dsn=None)


@pytest.mark.no_database("starts nothing")
def test_nothing_of_either_package_is_imported_while_they_are_off() -> None:
    code = (
        "import sys, receiver.serving.start, receiver.app; from receiver.telemetry.tracing import span\n"
        "with span('a', None, 'CLIENT'): pass\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'sentry_sdk'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
