"""The sandbox's state: its tasks, who may run, and the life that each task's script asks for."""

import asyncio
import random
import time
import uuid
from collections import Counter
from typing import Any

import orjson

from receiver.sandbox.background import Background
from receiver.sandbox.notices import NoticeSender
from receiver.sandbox.outbox import Outbox
from receiver.sandbox.outputs import finished_output, progress_output
from receiver.sandbox.script import (
    Moment,
    SandboxOptions,
    Script,
    ScriptedError,
    SubmitConduct,
    moments,
    outcome_of,
    patch_options,
    shape_for,
    submit_conduct,
)
from receiver.sandbox.task import CANCELLABLE, CreateRequest, SandboxTask


class Sandbox:
    """All tasks in memory, the oldest first, and what moves them on."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.tasks: dict[str, SandboxTask] = {}
        self.created_by_endpoint: Counter[str] = Counter()
        self.background = Background()
        self.sender = NoticeSender(lambda: self.options, self.background)
        self._seed(options.seed)
        self._outboxes: dict[str, Outbox] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._running: set[str] = set()
        self._staged: dict[str, SandboxTask] = {}
        self._created_by_work: Counter[str] = Counter()
        self._submit_failures: Counter[str] = Counter()

    def set_options(self, patch: object) -> None:
        """Change some options from now on; raises `KnobRefused`."""
        self.options = patch_options(self.options, patch)
        if isinstance(patch, dict) and "seed" in patch:
            self._seed(self.options.seed)
        self._admit()

    def submit_conduct(self, request: CreateRequest, script: Script) -> SubmitConduct:
        """Return what becomes of this create call, and remember it."""
        work = _same_work(request, script)
        conduct = submit_conduct(script, self._submit_failures[work])
        self._submit_failures[work] += conduct != "ok"
        return conduct

    def create(self, request: CreateRequest, script: Script) -> SandboxTask:
        """Accept a task, and let its life begin."""
        work = _same_work(request, script)
        task = SandboxTask(
            # Not from the seed: a restarted sandbox must not hand out the ids that it handed out before.
            id=str(uuid.uuid4()),
            request=request,
            script=script,
            shape=shape_for(script, request.model),
            outcome=outcome_of(script, self._created_by_work[work]),
            chance=random.Random(self._chance.getrandbits(64)),  # noqa: S311 - what befalls it, not a key
        )
        self._created_by_work[work] += 1
        if request.webhook.endpoint:
            self.created_by_endpoint[request.webhook.endpoint] += 1
        self.tasks[task.id] = task
        self._outboxes[task.id] = Outbox(task, self.sender, lambda: self.options)
        self._enter(task, "pending" if self._has_room() else "staged")
        self._lives[task.id] = self.background.start(self._live(task))
        return task

    async def told(self, task: SandboxTask) -> None:
        """Wait until the task's life is over and its client told of it, or given up."""
        await asyncio.wait([self._lives[task.id]])
        await self._outboxes[task.id].settled()

    def cancel(self, task: SandboxTask) -> bool:
        """Cancel a task for the client; False if it cannot be."""
        if not task.script.cancellable or task.status not in CANCELLABLE:
            return False
        self.advance(task, "cancelled")
        return True

    def advance(self, task: SandboxTask, status: str, **given: Any) -> None:
        """Force a status and tell the client. It ends the script: after this only `advance` moves the task.

        `given` may hold `output` and `error`; what it does not hold, the script decides.
        """
        self._lives[task.id].cancel()
        by_script = {
            "output": self._output_in(task, status),
            "error": task.script.error if status == "failed" else None,
        }
        self._enter(task, status, **{**by_script, **given})
        self._announce(task)
        self._outboxes[task.id].release()

    def cancel_before(self, created_ns: int, model: str) -> int:
        """Cancel what can be of a model's older tasks (`all`: of any model); return how many."""
        older = [task for task in self.tasks.values() if task.created_ns < created_ns]
        return sum(self.cancel(task) for task in older if model in ("all", task.request.model))

    async def _live(self, task: SandboxTask) -> None:
        if task.status == "staged":
            self._announce(task)
            await task.admitted.wait()
        self._announce(task)
        await asyncio.sleep(task.script.pending_seconds)
        self._enter(task, "processing", output={})
        self._announce(task)
        await self._process(task)
        if task.outcome == "failed_then_completed":
            self._finish(task, "failed")
            await asyncio.sleep(task.script.duration)
            self._finish(task, "completed")
        elif task.outcome != "never":
            self._finish(task, task.outcome)
        self._outboxes[task.id].release()

    async def _process(self, task: SandboxTask) -> None:
        began = time.monotonic()
        for moment in moments(task.script):
            await asyncio.sleep(began + moment.at - time.monotonic())
            self._happen(task, moment)
        await asyncio.sleep(began + task.script.duration - time.monotonic())

    def _happen(self, task: SandboxTask, moment: Moment) -> None:
        if moment.percent is not None:
            task.output = progress_output(task.shape, moment.percent)
        if moment.log is not None:
            task.logs.append(moment.log)
        self._announce(task, moment.word)

    def _finish(self, task: SandboxTask, outcome: str) -> None:
        status = "completed" if outcome == "completed_with_error" else outcome
        failed = outcome in ("failed", "completed_with_error")
        error = task.script.error if failed else None
        output = {} if failed else self._output_in(task, status)
        self._enter(task, status, output=output, error=error)
        self._announce(task)

    def _output_in(self, task: SandboxTask, status: str) -> dict[str, Any]:
        if status.casefold() not in ("completed", "success"):
            return {}
        return finished_output(task.shape, self.options.public_base_url, task.id, task.request.input)

    def _announce(self, task: SandboxTask, word: str | None = None) -> None:
        self._outboxes[task.id].announce(word)

    def _enter(
        self,
        task: SandboxTask,
        status: str,
        *,
        output: dict[str, Any] | None = None,
        error: ScriptedError | None = None,
    ) -> None:
        task.status, task.output, task.error = status, output, error
        if status == "processing" and task.started_ns is None:
            task.started_ns = time.time_ns()
        if task.terminal:
            task.ended_ns = time.time_ns()
        self._seat(task)
        self._admit()

    def _seat(self, task: SandboxTask) -> None:
        self._staged.pop(task.id, None)
        self._running.discard(task.id)
        if task.status == "staged":
            self._staged[task.id] = task
        elif not task.terminal:
            self._running.add(task.id)

    def _has_room(self) -> bool:
        limit = self.options.concurrency
        return limit is None or len(self._running) < limit

    def _admit(self) -> None:
        while self._staged and self._has_room():
            oldest = next(iter(self._staged.values()))
            oldest.status = "pending"
            self._seat(oldest)
            oldest.admitted.set()

    def _seed(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - misfortune that can be repeated, not a key


def _same_work(request: CreateRequest, script: Script) -> str:
    """Return what creates of the same work have in common."""
    return (
        script.key
        or request.webhook.endpoint
        or orjson.dumps([request.model, request.input], option=orjson.OPT_SORT_KEYS).decode()
    )
