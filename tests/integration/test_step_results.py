"""The result of a step is that of its task, whichever transaction wrote the task's output."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from models import TaskStatus
from receiver.domain.updates import Source
from receiver.runs import advance
from receiver.tracking.update_batch import Arrival
from tests.integration.harness import tracking
from tests.integration.run_harness import RunHarness, told

OUTPUT = {"image_url": "https://img.example.com/1.png"}
RESULT = {"image_url": OUTPUT["image_url"], "result_url": OUTPUT["image_url"]}


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[RunHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield RunHarness(harness)


async def arrive(harness: RunHarness, run: str, status: TaskStatus, **fields: Any) -> None:
    """Apply a webhook of the step's task."""
    update = replace(told(status, Source.WEBHOOK), **fields)
    await harness.tracking.apply(Arrival(provider="piapi", task_uid=(await harness.task(run))["uid"], update=update))


async def end_of(harness: RunHarness, run: str) -> tuple[str, dict[str, Any] | None, Any]:
    """Return a step's status, its result without the ids, and its error."""
    step = await harness.step(run, "a")
    result = step["result"] and {name: step["result"].get(name) for name in RESULT}
    return step["status"], result, step["error"]


async def test_what_the_same_transaction_wrote_is_not_read_again(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failed = await harness.sent(), await harness.begin("a", max_attempts=1)
    monkeypatch.setattr(advance, "outcomes_of", None)
    await arrive(harness, run, TaskStatus.COMPLETED, output=OUTPUT)
    assert await end_of(harness, run) == ("completed", RESULT, None)
    error = {"code": 7, "message": "no"}
    await arrive(harness, failed, TaskStatus.FAILED, error=error, provider_task_id="pt-2")
    assert await end_of(harness, failed) == ("failed", None, error)


async def test_an_output_that_an_earlier_update_brought_is_read(harness: RunHarness) -> None:
    run = await harness.sent()
    await arrive(harness, run, TaskStatus.PROCESSING, output=OUTPUT)
    await arrive(harness, run, TaskStatus.COMPLETED)
    assert await end_of(harness, run) == ("completed", RESULT, None)
