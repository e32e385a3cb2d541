"""Acting on every task that matches a filter: `/api/v1/tasks/cancel|retry|refresh` and `/api/v1/bulk-actions`."""

from collections.abc import Mapping
from typing import Any

from models import BulkActionKind, BulkActionStatus
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row, read_id
from receiver.api.lists import page, read_cursor
from receiver.api.repetition import after_work, has_moved
from receiver.api.schemas import Page, TasksToChange
from receiver.domain.bulk_action_views import native_bulk_action
from receiver.storage.bulk_actions import action_by_id, actions_of

Row = Mapping[str, Any]


async def cancel_tasks(call: Call) -> Reply:
    """`POST /api/v1/tasks/cancel`: cancel the tasks that match, in the background; with `dry_run` only count them."""
    return await _create(call, BulkActionKind.CANCEL)


async def retry_tasks(call: Call) -> Reply:
    """`POST /api/v1/tasks/retry`: begin another attempt at the tasks that match; with `dry_run` only count them."""
    return await _create(call, BulkActionKind.RETRY)


async def refresh_tasks(call: Call) -> Reply:
    """`POST /api/v1/tasks/refresh`: have those that match polled soon, in the background; or only count them."""
    return await _create(call, BulkActionKind.REFRESH)


async def list_bulk_actions(call: Call) -> Reply:
    """`GET /api/v1/bulk-actions`: the bulk actions, newest first."""
    query = call.query(Page)
    rows = await call.services.database.read(
        actions_of(call.organization_id, query.limit + 1, read_cursor(query.cursor))
    )
    return page(rows, query.limit, map(native_bulk_action, rows))


async def get_bulk_action(call: Call) -> Reply:
    """`GET /api/v1/bulk-actions/{id}`: a bulk action and its progress."""
    return _reply(await _action(call))


async def cancel_bulk_action(call: Call) -> Reply:
    """`POST /api/v1/bulk-actions/{id}/cancel`: begin no further batch of it; what was done stays."""
    row = await _action(call)
    if not (await has_moved(call, row["status"]) and row["status"] == BulkActionStatus.CANCELLED):
        await call.services.bulk_actions.cancel(row, call.actor())
    return _reply(await after_work(_action(call)))


async def _create(call: Call, kind: BulkActionKind) -> Reply:
    wanted, actions = await call.body(TasksToChange, optional=True), call.services.bulk_actions
    given = wanted.filters
    if wanted.run_id is not None:
        given["run_id"] = read_id(wanted.run_id, param="run_id")
        await call.services.runs.run(call.organization_id, given["run_id"])
    if wanted.dry_run:
        count = await actions.count(call.organization_id, kind, given)
        return Reply({"object": "dry_run", "kind": kind, "matched": count}, "dry_run")
    uid = call.new_id()
    if call.is_resumed and (rows := await call.services.database.read(action_by_id(call.organization_id, uid))):
        return _reply(rows[0], status=202)
    return _reply(await actions.create(uid, kind, given, call.actor()), status=202)


async def _action(call: Call) -> Row:
    query = action_by_id(call.organization_id, call.path_id("bulk_action_id"))
    return await find_row(call.services.database, query, "bulk_action")


def _reply(row: Row, *, status: int = 200) -> Reply:
    return Reply(native_bulk_action(row), "bulk_action", status=status)
