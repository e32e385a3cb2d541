"""Explains tasks: gathers the facts by which `receiver.domain.task_explanations` says why a task is in its state."""

from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace

from models import TERMINAL, Submission
from receiver.clock import utc_now
from receiver.domain.explanations import Explanation
from receiver.domain.task_explanations import TaskFacts, explain_task, is_held
from receiver.errors import NotFound
from receiver.providers import Providers
from receiver.storage.database import Database
from receiver.storage.explanations import input_of, task_to_explain, tasks_queued_before, tasks_to_explain
from receiver.storage.large_rows import SMALL_BYTES
from receiver.tracking.task_references import TaskReferences, Waits

Row = Mapping[str, Any]


class TaskExplainer:
    """Explains tasks; `usual` are the facts that are the same for every task."""

    def __init__(self, database: Database, providers: Providers, usual: TaskFacts) -> None:
        self._database = database
        self._providers = providers
        self._usual = usual
        self._references = TaskReferences(database)

    async def explain(self, organization_id: int, task_id: str) -> tuple[str, Explanation]:
        """Return a task's id and why it is in its state. Raises `NotFound`."""
        rows = await self._database.read(task_to_explain(organization_id, task_id))
        if not rows:
            raise NotFound(f"task {task_id[:80]!r} does not exist", code="task_not_found", param="task_id")
        return rows[0]["uid"], await self._explain(rows[0])

    async def explain_all(self, organization_id: int, uids: Collection[str]) -> dict[str, Explanation]:
        """Return the explanations of those of these tasks that exist, by their ids: a few."""
        rows = await self._database.read(tasks_to_explain(organization_id, uids)) if uids else []
        return {row["uid"]: await self._explain(row) for row in rows}

    async def _explain(self, task: Row) -> Explanation:
        facts = replace(self._usual, now=utc_now())
        name = task["provider"]
        if name in self._providers:
            facts = replace(facts, output_seconds=self._providers.capabilities(name).output_seconds)
        # Of an account that this process has not called yet nothing is known here.
        if (provider := self._providers.known(name, task["account_id"])) is not None:
            facts = replace(facts, paused_seconds=provider.paused_for(), key_refusal=provider.key_refusal())
        if task["status"] not in TERMINAL and task["submission"] == Submission.WAITING and task["due_at"] is not None:
            facts = await self._of_queue(task, facts)
        return explain_task(task, facts)

    async def _of_queue(self, task: Row, facts: TaskFacts) -> TaskFacts:
        if is_held(task, facts.now):
            return facts
        if task["due_at"] <= facts.now:
            rows = await self._database.read(tasks_queued_before(task))
            facts = replace(facts, queued_before=rows[0]["count"])
        # It was put off before: perhaps because its input names a task that the provider does not know yet.
        if task["poll_count"] and task["stored_bytes"] <= SMALL_BYTES:
            rows = await self._database.read(input_of(task["uid"]))
            found = await self._references.resolve(task["organization_id"], task["provider"], rows[0]["input"])
            if isinstance(found, Waits):
                facts = replace(facts, waits_for=found.uid)
        return facts
