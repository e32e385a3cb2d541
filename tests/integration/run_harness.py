"""Runs on a real database, without HTTP: a provider whose answers a test gives, and what calls it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from models import TaskStatus
from receiver.clock import utc_now
from receiver.domain.actions import Actions
from receiver.domain.graph import Graph, StepSpec
from receiver.domain.ids import new_id
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import (
    Accepted,
    Cancelled,
    CancelOutcome,
    FetchOutcome,
    Found,
    History,
    NewTask,
    ProviderTask,
    SubmitOutcome,
)
from receiver.providers.base import ConfirmSend
from receiver.runs.advance import Advancer
from receiver.runs.service import RunRequest, Runs
from receiver.tracking.recall import RecalledTasks
from tests.fakes.claims import claim_polls, claim_unsent
from tests.integration.harness import BaseFakeProvider, TrackingHarness

LATER = timedelta(hours=2)
"""So much later, everything that is due at all is due."""
_LEASE = timedelta(minutes=3)
Answer = TypeVar("Answer")


class AnsweringProvider(BaseFakeProvider):
    """A provider that gives the answers in `submits`, `fetches` and `cancels`, the last of each again and again.

    `during_submit` is awaited before a create call is answered.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.submits: list[SubmitOutcome] = [Accepted(told(TaskStatus.PENDING, Source.SUBMIT))]
        self.fetches: list[FetchOutcome] = [Found(told(TaskStatus.PENDING))]
        self.cancels: list[CancelOutcome] = [Cancelled("success")]
        self.during_submit: Callable[[], Awaitable[Any]] | None = None

    def key_refusal(self) -> str | None:
        return None

    def paused_for(self) -> float:
        return 0.0

    async def submit(self, task: NewTask, *, confirm: ConfirmSend | None = None, **_: Any) -> SubmitOutcome:
        if confirm is not None and not await confirm():
            return self._answer("refused intent", self.submits)
        if self.during_submit is not None:
            await self.during_submit()
        return self._answer("submit", self.submits)

    async def fetch(self, task: ProviderTask, **_: Any) -> FetchOutcome:
        return self._answer("fetch", self.fetches)

    async def cancel(self, task: ProviderTask, **_: Any) -> CancelOutcome:
        return self._answer("cancel", self.cancels)

    async def history(self, **_: Any) -> History:
        self.calls.append("history")
        return History([], is_complete=True)

    def _answer(self, call: str, answers: list[Answer]) -> Answer:
        self.calls.append(call)
        return answers.pop(0) if len(answers) > 1 else answers[0]


class RunHarness:
    """Runs with that provider. Nothing acts on a task but `act_on`."""

    def __init__(self, tracking: TrackingHarness) -> None:
        self.tracking = tracking
        self.provider = AnsweringProvider()
        self.submitter, self.poller = tracking.calling(self.provider)
        after_commit = tracking.applier.after_commit
        tasks, advancer = RecalledTasks(after_commit), Advancer(after_commit.due)
        self.runs = Runs(tracking.database, after_commit, tasks, Actions("piapi"), advancer)

    async def begin(self, *steps: str, max_attempts: int = 3) -> str:
        """Create a run of steps that follow one another; return its id."""
        specs = tuple(
            StepSpec(
                id=name, action="flux:txt2img", depends_on=steps[max(0, number - 1) : number], max_attempts=max_attempts
            )
            for number, name in enumerate(steps)
        )
        request = RunRequest(
            uid=new_id(), organization_id=1, organization_uid=self.tracking.organization_uid, graph=Graph(specs)
        )
        await self.runs.create(request)
        return request.uid

    async def cancel(self, run: str) -> dict[str, str]:
        """Cancel a run; return the status of each step in the answer."""
        return {step["name"]: step["status"] for step in (await self.runs.cancel(1, run))["steps"]}

    async def step(self, run: str, name: str) -> dict[str, Any]:
        """Return the row of a step."""
        return next(step for step in (await self.runs.run(1, run))["steps"] if step["name"] == name)

    async def task(self, run: str, name: str = "a") -> dict[str, Any]:
        """Return the row of a step's task."""
        return await self.tracking.task((await self.step(run, name))["task_uid"])

    async def act_on(self, run: str, name: str = "a") -> None:
        """Claim the task of a step as if much time had passed, and act on it as the task worker does."""
        uid = (await self.step(run, name))["task_uid"]
        then, now = utc_now() + LATER, utc_now()
        writer = self.tracking.database.writer
        claimed = await claim_polls(writer, then, now + _LEASE, 10)
        claimed += await claim_unsent(writer, then, now + _LEASE, 10, (0, False))
        (due,) = [each for each in claimed if each.state.uid == uid]
        await self.poller.act_on(due)

    async def sent(self, **options: Any) -> str:
        """Begin a run of one step that the provider has as pending; return the run's id."""
        run = await self.begin("a", **options)
        await self.act_on(run)
        self.provider.calls.clear()
        return run


def told(status: TaskStatus, source: Source = Source.POLL, **fields: Any) -> ProviderUpdate:
    """Return what the provider says of its task."""
    return ProviderUpdate(source=source, status=status, provider_task_id="pt-1", **fields)
