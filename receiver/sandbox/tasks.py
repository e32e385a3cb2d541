"""The sandbox's state: its tasks, the concurrency limit, and the execution of each task's script."""

import asyncio
import random
import secrets
import time
import uuid
from collections import Counter
from typing import Any

import orjson
from starlette.requests import Request

from receiver.sandbox.background import Background
from receiver.sandbox.files import Files
from receiver.sandbox.notices import NoticeSender
from receiver.sandbox.outputs import finished_output, progress_output
from receiver.sandbox.script import (
    SandboxOptions,
    Script,
    ScriptedError,
    SubmitBehaviour,
    TimelineEntry,
    outcome_of,
    patch_options,
    shape_for,
    submit_behaviour,
    timeline,
)
from receiver.sandbox.task import CANCELLABLE, CreateRequest, SandboxTask, TaskTwin
from receiver.sandbox.webhook_faults import WebhookFaults


class Sandbox:
    """Keeps all tasks in memory, oldest first, and runs their scripts."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.files = Files()
        self.tasks: dict[str, SandboxTask] = {}
        self.created_by_endpoint: Counter[str] = Counter()
        self.background = Background()
        self.sender = NoticeSender(lambda: self.options, self.background)
        self._seed(options.seed)
        self._webhook_faults: dict[str, WebhookFaults] = {}
        self._scripts: dict[str, asyncio.Task[None]] = {}
        self._running: set[str] = set()
        self._staged: dict[str, SandboxTask] = {}
        self._created_by_work: Counter[str] = Counter()
        self._submit_failures: Counter[str] = Counter()

    def set_options(self, patch: object) -> None:
        """Change some options. Raises `KnobRefused`."""
        self.options = patch_options(self.options, patch)
        if isinstance(patch, dict) and "seed" in patch:
            self._seed(self.options.seed)
        self._admit()

    def submit_behaviour(self, request: CreateRequest, script: Script) -> SubmitBehaviour:
        """Return what this create call does, and count it if it fails."""
        work = _work_key(request, script)
        behaviour = submit_behaviour(script, self._submit_failures[work])
        self._submit_failures[work] += behaviour != "ok"
        return behaviour

    def authorizes(self, request: Request) -> bool:
        """Whether the request has the key of the options, or any key if the options have none."""
        given = request.headers.get("x-api-key") or _bearer(request.headers.get("authorization", ""))
        wanted = self.options.api_key
        return bool(given) and (wanted is None or secrets.compare_digest(given.encode(), wanted.encode()))

    def files_url(self, request: Request) -> str:
        """Return the beginning of the URLs of files, without a slash at its end, as the request's client reaches it."""
        return (self.options.public_base_url or f"{request.base_url}files").rstrip("/")

    def create(
        self,
        request: CreateRequest,
        script: Script,
        files_url: str,
        *,
        twin: TaskTwin | None = None,
        endpoint: str | None = None,
    ) -> SandboxTask:
        """Make a task, and start its script. `files_url` is the beginning of the URLs in its output.

        `endpoint` is where its webhooks go if the request does not say that.
        """
        work = _work_key(request, script)
        task = SandboxTask(
            # Not from the seed: a restarted sandbox may not assign the ids of an earlier run again.
            id=str(uuid.uuid4()),
            request=request,
            script=script,
            shape=shape_for(script, request.model, request.task_type),
            outcome=outcome_of(script, self._created_by_work[work]),
            files_url=files_url,
            twin=twin,
            endpoint=request.webhook.endpoint or endpoint or "",
            rng=random.Random(self._rng.getrandbits(64)),  # noqa: S311 - for faults, not for keys
        )
        self._created_by_work[work] += 1
        if request.webhook.endpoint:
            self.created_by_endpoint[request.webhook.endpoint] += 1
        self.tasks[task.id] = task
        self._webhook_faults[task.id] = WebhookFaults(task, self.sender, lambda: self.options)
        self._enter(task, "pending" if self._has_capacity() else "staged")
        self._scripts[task.id] = self.background.start(self._run_script(task))
        return task

    async def wait_until_notified(self, task: SandboxTask) -> None:
        """Wait until the task's script has ended and all its notices are acknowledged or given up."""
        await asyncio.wait([self._scripts[task.id]])
        await self._webhook_faults[task.id].settled()

    def cancel(self, task: SandboxTask, *, also_running: bool = False) -> bool:
        """Cancel a task for the client; return False if it cannot be cancelled."""
        can_be = not task.terminal if also_running else task.status in CANCELLABLE
        if not task.script.cancellable or not can_be:
            return False
        self.advance(task, "cancelled")
        return True

    def advance(self, task: SandboxTask, status: str, **given: Any) -> None:
        """Set a status and notify the client. This ends the script: afterwards only `advance` changes the task.

        `given` may contain `output` and `error`; the script is the default for each.
        """
        self._scripts[task.id].cancel()
        by_script = {
            "output": self._output_in(task, status),
            "error": task.script.error if status == "failed" else None,
        }
        self._enter(task, status, **{**by_script, **given})
        self._announce(task)
        self._webhook_faults[task.id].release()

    def cancel_before(self, created_ns: int, family: str) -> int:
        """Cancel a family's cancellable tasks (`all`: every family's) older than `created_ns`; return how many."""
        older = [task for task in self.tasks.values() if task.created_ns < created_ns]
        return sum(self.cancel(task) for task in older if family == "all" or task.family.is_named(family))

    async def _run_script(self, task: SandboxTask) -> None:
        if task.status == "staged":
            self._announce(task)
            await task.admitted.wait()
        self._announce(task)
        await asyncio.sleep(task.script.pending_seconds)
        self._enter(task, "processing", output={})
        self._announce(task)
        await self._process(task)
        if task.outcome in ("failed_then_completed", "output_later"):
            self._finish(task, "failed" if task.outcome == "failed_then_completed" else "output_later")
            await asyncio.sleep(task.script.duration)
            self._finish(task, "completed")
        elif task.outcome != "never":
            self._finish(task, task.outcome)
        self._webhook_faults[task.id].release()

    async def _process(self, task: SandboxTask) -> None:
        began = time.monotonic()
        for entry in timeline(task.script):
            await asyncio.sleep(began + entry.at - time.monotonic())
            self._apply(task, entry)
        await asyncio.sleep(began + task.script.duration - time.monotonic())

    def _apply(self, task: SandboxTask, entry: TimelineEntry) -> None:
        if entry.percent is not None:
            task.output = progress_output(task.shape, entry.percent)
        if entry.log is not None:
            task.logs.append(entry.log)
        self._announce(task, entry.word)

    def _finish(self, task: SandboxTask, outcome: str) -> None:
        status = "completed" if outcome in ("completed_with_error", "output_later") else outcome
        failed = outcome in ("failed", "completed_with_error")
        error = task.script.error if failed else None
        output = {} if failed or outcome == "output_later" else self._output_in(task, status)
        self._enter(task, status, output=output, error=error)
        self._announce(task)

    def _output_in(self, task: SandboxTask, status: str) -> dict[str, Any]:
        if status.casefold() not in ("completed", "success"):
            return {}
        return finished_output(task.shape, task.files_url, task.id, task.request.input)

    def _announce(self, task: SandboxTask, word: str | None = None) -> None:
        self._webhook_faults[task.id].announce(word)

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
        self._update_slots(task)
        self._admit()

    def _update_slots(self, task: SandboxTask) -> None:
        self._staged.pop(task.id, None)
        self._running.discard(task.id)
        if task.status == "staged":
            self._staged[task.id] = task
        elif not task.terminal:
            self._running.add(task.id)

    def _has_capacity(self) -> bool:
        limit = self.options.concurrency
        return limit is None or len(self._running) < limit

    def _admit(self) -> None:
        while self._staged and self._has_capacity():
            oldest = next(iter(self._staged.values()))
            oldest.status = "pending"
            self._update_slots(oldest)
            oldest.admitted.set()

    def _seed(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - for repeatable faults, not for keys


def _work_key(request: CreateRequest, script: Script) -> str:
    """Return the key that is equal for creates of the same work."""
    return (
        script.key
        or request.webhook.endpoint
        or orjson.dumps([request.model, request.input], option=orjson.OPT_SORT_KEYS).decode()
    )


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
