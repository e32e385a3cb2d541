"""What the task worker sends: what came with the claim of a task, or its row if it is large."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.clock import utc_now
from receiver.domain.graph import Graph, StepSpec
from receiver.domain.ids import new_id
from receiver.runs.service import RunRequest
from receiver.storage.large_rows import SMALL_BYTES
from receiver.storage.transaction import DueTask
from receiver.tracking.submit import Outgoing
from tests.fakes.claims import claim_unsent
from tests.integration.harness import tracking
from tests.integration.run_harness import LATER, RunHarness

SMALL: dict[str, Any] = {"prompt": "a fox", "nested": [{"a": None}]}
LARGE: dict[str, Any] = {"prompt": "x" * SMALL_BYTES}


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[RunHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield RunHarness(harness)


@pytest.fixture
def sent(harness: RunHarness, monkeypatch: pytest.MonkeyPatch) -> list[Outgoing]:
    """What was handed over to be sent."""
    found: list[Outgoing] = []

    async def send(_provider: str, task: Outgoing) -> None:
        found.append(task)

    monkeypatch.setattr(harness.submitter, "send", send)
    return found


async def claimed(harness: RunHarness, given: dict[str, Any]) -> tuple[str, DueTask]:
    """Create a run of one step with this input; return its id, and the claim of the step's task."""
    step = StepSpec(id="a", action="flux:txt2img", input=given)
    request = RunRequest(
        uid=new_id(),
        organization_id=1,
        organization_uid=harness.tracking.organization_uid,
        graph=Graph((step,)),
    )
    await harness.runs.create(request)
    then = utc_now() + LATER
    writer = harness.tracking.database.writer
    (due,) = await claim_unsent(writer, then, then + timedelta(minutes=3), 10, (0, False))
    return request.uid, due


@pytest.mark.parametrize("given", [SMALL, LARGE])
async def test_a_task_is_sent_as_it_was_created(
    harness: RunHarness, sent: list[Outgoing], given: dict[str, Any]
) -> None:
    run, due = await claimed(harness, given)
    await harness.poller.act_on(due)
    (outgoing,), row = sent, await harness.task(run)
    names = ("uid", "organization_id", "account_id", "attempt", "model", "task_type", "input", "config", "bulk")
    assert {name: getattr(outgoing, name) for name in names} == {name: row[name] for name in names}
    assert (outgoing.submission, outgoing.tries) == (row["submission"], row["poll_count"])
    assert outgoing.trace_context == row["trace_context"]
    assert outgoing.input == given


async def test_a_small_task_is_sent_without_another_query(
    harness: RunHarness, sent: list[Outgoing], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, due = await claimed(harness, SMALL)
    for name in ("read", "read_by_keys"):
        monkeypatch.setattr(harness.tracking.database, name, None)
    await harness.poller.act_on(due)
    assert len(sent) == 1


async def test_a_large_task_that_was_cancelled_since_its_claim_is_not_sent(
    harness: RunHarness, sent: list[Outgoing]
) -> None:
    run, due = await claimed(harness, LARGE)
    await harness.cancel(run)
    await harness.poller.act_on(due)
    assert sent == []
