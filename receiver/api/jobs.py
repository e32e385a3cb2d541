"""`GET /api/v1/jobs/{id}`: a task in the form of Pi's job (`receiver/api/CONTRACTS.md`, "Pi").

A step's `job_id` is the id of its task.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.lists import first_items
from receiver.api.long_poll import Caller, Later
from receiver.api.run_schemas import JobQuery
from receiver.domain.representations import native_attempts, native_event
from receiver.domain.run_representations import JOB_FIELDS, native_job
from receiver.errors import BadRequest, NotFound
from receiver.storage.events import events_of_task, large_events_of_task
from receiver.storage.large_rows import read_first

_INCLUDES = ("diagnostics",)
_MOST_EVENTS = 200


async def get_job(call: Call) -> Reply | Later:
    """Return a task as Pi's job, at once or when it has ended; `fields` selects fields, `include` adds diagnostics."""
    uid = call.path_id("job_id")
    query = call.query(JobQuery)
    fields = _names(query.fields, JOB_FIELDS, code="invalid_query_params", param="fields")
    included = _included(query)
    if not query.wait_for_completion:
        return await _reply(call, await _task(call, uid, None), fields, included)
    return Later(partial(_reply_when_ended, uid, query.timeout_seconds, fields, included))


async def _reply_when_ended(
    uid: str, seconds: float, fields: frozenset[str], included: frozenset[str], call: Caller
) -> Reply:
    return await _reply(call, await _task(call, uid, seconds), fields, included)


async def _reply(call: Caller, task: Mapping[str, Any], fields: frozenset[str], included: frozenset[str]) -> Reply:
    job = native_job(task, call.principal.organization_uid)
    if fields:
        job = {name: value for name, value in job.items() if name in fields}
    if included:
        job["diagnostics"] = await _diagnostics(call, task)
    return Reply(job, "job")


async def _task(call: Caller, uid: str, seconds: float | None) -> Mapping[str, Any]:
    tracker = call.services.tracker
    try:
        if seconds is None:
            return await tracker.task(call.organization_id, uid, call.hold)
        with call.services.quotas.waiting(call.organization_id):
            return await tracker.wait(call.organization_id, uid, seconds, call.hold)
    except NotFound:
        raise NotFound(f"there is no job {uid!r}", code="job_not_found", param="job_id") from None


async def _diagnostics(call: Caller, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task's history: all attempts, and the newest events, both oldest first."""
    wanted = large_events_of_task(events_of_task(task["id"], _MOST_EVENTS + 1, None))
    rows, rest = await read_first(call.services.database.read, wanted, call.hold)
    events = first_items((native_event(task, row) for row in rows), _MOST_EVENTS)
    return {
        **{name: task[name] for name in ("provider", "provider_task_id", "submission", "attempt", "max_attempts")},
        "attempts": native_attempts(task, await call.services.tracker.attempts(task)),
        "events": events[::-1],
        "has_more": bool(rest) or len(rows) > len(events),
    }


def _included(query: JobQuery) -> frozenset[str]:
    return frozenset().union(
        *(
            _names(given, _INCLUDES, code="invalid_expand_param", param=param)
            for param, given in (("include", query.include), ("expand", query.expand))
        )
    )


def _names(given: str | None, known: tuple[str, ...], *, code: str, param: str) -> frozenset[str]:
    """Return the names that a query lists. Raises `BadRequest` that lists the known names."""
    names = [name.strip() for name in (given or "").split(",") if name.strip()]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise BadRequest(f"{unknown[:80]!r} is unknown; known are {', '.join(known)}", code=code, param=param)
    return frozenset(names)
