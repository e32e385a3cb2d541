"""The spans of calls to providers, in the traces of the tasks that they are made for (`receiver.telemetry.tracing`).

A span has the kind of the outcome, and its HTTP status where the outcome keeps it; nothing of what the provider said.
Like the call, it includes the wait for the rate limit.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from receiver.domain.task_state import TaskState
from receiver.providers import Accepted, Cancelled, Found, History
from receiver.telemetry.tracing import span

CallResult = TypeVar("CallResult")

_SUCCEEDED = (Accepted, Found, Cancelled)
_MOST_LINKS = 32
"""Of a search: one look at the provider's list serves any number of tasks."""


async def traced_call(
    name: str, call: Awaitable[CallResult], trace_context: str | None, **ids: str | int | None
) -> CallResult:
    """Make a call to a provider within a span; return its outcome."""
    with span(name, trace_context, "CLIENT", **ids) as own:
        outcome = await call
        own.answered(getattr(outcome, "status", None))
        if not isinstance(outcome, _SUCCEEDED):
            own.fail(type(outcome).__name__)
        elif not isinstance(outcome, Cancelled):
            own.set(provider_task_id=outcome.update.provider_task_id, status=outcome.update.status)
        return outcome


async def traced_search(
    reading: Awaitable[History], provider: str, model: str, rows: Sequence[Mapping[str, Any]]
) -> History:
    """Read a provider's list within a span, in the trace of the first of these tasks, and linked to the others'."""
    first, *others = rows
    links = [context for row in others[:_MOST_LINKS] if (context := row["trace_context"]) is not None]
    ids = {"task_id": first["uid"], "provider": provider, "model": model, "tasks": len(rows)}
    with span("search task", first["trace_context"], "CLIENT", links, **ids) as own:
        history = await reading
        if not history.is_complete:
            own.fail("incomplete")
        return history


def span_ids(task: TaskState) -> dict[str, str | int | None]:
    """Return the attributes of a span of a task's."""
    return {
        "task_id": task.uid,
        "run_id": task.run_uid,
        "provider": task.provider,
        "model": task.model,
        "attempt": task.attempt,
        "provider_task_id": task.provider_task_id,
    }
