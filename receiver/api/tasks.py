"""Ringback's own endpoints for tasks, in Pi's envelope."""

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call, check
from receiver.api.lists import page, read_cursor, read_query
from receiver.api.piapi import waited_for
from receiver.api.schemas import Page, TaskQuery
from receiver.domain.representations import native_event, native_task
from receiver.storage.queries import TaskFilter, events_of_task, tasks_matching


async def list_tasks(call: Call) -> Reply:
    """`GET /api/v1/tasks`: filters on status, model, task_type, created_after/before and `metadata[k]=v`."""
    query = check(TaskQuery, read_query(call.request.query_params), code="invalid_query_params")
    wanted = TaskFilter(
        organization_id=call.organization_id,
        status=query.status,
        model=query.model,
        task_type=query.task_type,
        created_after=query.created_after,
        created_before=query.created_before,
        labels=query.metadata,
        before=read_cursor(query.cursor),
    )
    rows = await call.services.database.read(tasks_matching(wanted, query.limit + 1))
    return page(rows, query.limit, [native_task(row) for row in rows])


async def get_task(call: Call) -> Reply:
    """`GET /api/v1/tasks/{id}`, at once or when it has ended."""
    return Reply(native_task(await waited_for(call)))


async def list_events(call: Call) -> Reply:
    """`GET /api/v1/tasks/{id}/events`: the task's history, newest first."""
    query = check(Page, read_query(call.request.query_params), code="invalid_query_params")
    task = await call.services.tracker.task(call.organization_id, call.path("task_id"))
    rows = await call.services.database.read(events_of_task(task["id"], query.limit + 1, read_cursor(query.cursor)))
    return page(rows, query.limit, [native_event(row, task["uid"]) for row in rows])


async def refresh_task(call: Call) -> Reply:
    """`POST /api/v1/tasks/{id}/refresh`: looks at the provider now."""
    return Reply(native_task(await call.services.tracker.refresh(call.organization_id, call.path("task_id"))))


async def cancel_task(call: Call) -> Reply:
    """`POST /api/v1/tasks/{id}/cancel`."""
    tracker = call.services.tracker
    task = await tracker.task(call.organization_id, call.path("task_id"))
    await tracker.cancel(task)
    return Reply(native_task(await tracker.task(call.organization_id, task["uid"])))
