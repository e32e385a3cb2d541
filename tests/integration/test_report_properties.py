"""Whatever happens to tasks and webhooks, as long as the service itself writes it, the report adds up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from models import DeliveryStatus, EventType, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.errors import Conflict
from receiver.storage.subscriptions import change_subscription, remove_subscription
from receiver.storage.tables import subscriptions, tasks
from tests.integration.harness import tracking
from tests.integration.report_history import CALLBACK, HOUR, OUTPUT, History

MANY = settings(max_examples=10, suppress_health_check=list(HealthCheck))
FILTERS: tuple[Mapping[str, Any] | None, ...] = (
    None,
    {"model": ["flux"]},
    {"model": ["kling"]},
    {"task_type": ["txt2img"], "metadata": {"order": ["7"]}},
    {"run_id": [new_id()]},
)


async def _task(history: History, number: int) -> str:
    rows = await history.harness.database.read(select(tasks.c.uid).order_by(tasks.c.id))
    return str(rows[number % len(rows)]["uid"]) if rows else await history.create()


async def _webhook(history: History, number: int) -> str:
    wanted = select(subscriptions.c.uid).where(subscriptions.c.fingerprint.is_(None)).order_by(subscriptions.c.id)
    rows = await history.harness.database.read(wanted)
    return str(rows[number % len(rows)]["uid"])


async def create(history: History, number: int) -> None:
    metadata = ({"order": 7}, {"order": "8"}, None)[number % 3]
    await history.create(callback=CALLBACK if number % 2 else None, metadata=metadata, max_attempts=1 + number % 3)


async def adopt(history: History, number: int) -> None:
    await history.harness.receive(TaskStatus.PROCESSING, provider_task_id=f"elsewhere-{number}")


async def report_status(history: History, number: int) -> None:
    status = list(TaskStatus)[number % len(TaskStatus)]
    task = await _task(history, number // len(TaskStatus))
    retryable = {"retryable": True, "error": {"code": "busy"}} if status == TaskStatus.FAILED and number % 2 else {}
    output = OUTPUT if status == TaskStatus.COMPLETED and number % 3 else None
    found = await history.harness.task(task)
    provider_id = found["provider_task_id"] or f"pt-{task}-{found['attempt']}"
    await history.harness.receive(status, task, provider_task_id=provider_id, output=output, **retryable)


async def retry(history: History, number: int) -> None:
    try:
        await history.retry(await _task(history, number))
    except Conflict:
        return


async def deliver(history: History, number: int) -> None:
    is_dead = number % 3 == 0
    await history.deliver(DeliveryStatus.DEAD if is_dead else DeliveryStatus.DELIVERED, 500 if is_dead else 204)


async def subscribe(history: History, number: int, **since: Any) -> None:
    given = since or {"created_at": utc_now(), "updated_at": utc_now()}
    types = (list(EventType), [EventType.TASK_COMPLETED, EventType.TASK_FAILED])[number % 2]
    filters = FILTERS[number % len(FILTERS)]
    await history.subscribe(event_types=types, filters=filters, ordered=number % 3 == 0, **given)


async def switch(history: History, number: int) -> None:
    uid = await _webhook(history, number)
    is_active = {"is_active": number % 2 == 0}
    await history.harness.database.writer.run(lambda tx: change_subscription(tx, uid, is_active, utc_now()))


async def remove(history: History, number: int) -> None:
    uid = await _webhook(history, number)
    await history.harness.database.writer.run(lambda tx: remove_subscription(tx, uid, utc_now()))


STEPS: tuple[Callable[[History, int], Awaitable[None]], ...] = (
    *(create, adopt, report_status, report_status, report_status, retry, deliver, subscribe, switch, remove),
)


async def happen(folder: Path, script: list[tuple[int, int]]) -> None:
    async with tracking(folder) as harness:
        history = History(harness, 1)
        for number in range(len(FILTERS)):
            await subscribe(history, number, created_at=utc_now() - HOUR, updated_at=utc_now() - HOUR)
        for step, number in script:
            await STEPS[step](history, number)
        found = await history.report()
        assert found.gaps == {}
        assert found.adds_up
        assert found.tasks.created == len(await harness.tasks())
        assert found.events.total() == len(await harness.events())
        own = found.deliveries
        listed = own.delivered + own.waiting + own.dead + own.cancelled + own.earlier_settings
        assert listed == len(await harness.deliveries())


@pytest.mark.sqlite_only("each history needs a database of its own, which takes long to make on PostgreSQL")
@pytest.mark.usefixtures("backend")
def test_an_honest_history_adds_up() -> None:
    @MANY
    @given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 1000)), max_size=25))
    def run(script: list[tuple[int, int]]) -> None:
        with TemporaryDirectory() as folder:
            asyncio.run(happen(Path(folder), script))

    run()
