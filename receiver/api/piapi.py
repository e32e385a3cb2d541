"""The endpoints of PiAPI's API, so that a PiAPI client needs only another base URL.

Sources: `receiver/providers/piapi/CONTRACT.md`, and `receiver/api/CONTRACTS.md`, "Ringback".
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp

from models import TaskStatus
from receiver.api.dialects import Reply, bounded_refusal
from receiver.api.endpoint import Call
from receiver.api.long_poll import Caller, Later
from receiver.api.organizations import require_provider_account
from receiver.api.piapi_queries import CancelQuery, HistoryQuery
from receiver.api.repetition import cancelled
from receiver.api.schemas import CreateTask, WaitQuery
from receiver.api.task_requests import (
    check_not_refused,
    initial_task,
    know_accounts,
    read_callback,
    reply_with_task,
    task_request,
    webhook_config_of,
)
from receiver.domain.audit_values import difference
from receiver.domain.model_families import (
    ALL_MODELS,
    ALWAYS_ACTIVE_KEYS,
    active_key,
    family_named,
    family_names,
    models_wanted,
)
from receiver.domain.representations import iso, piapi_active_task, piapi_shortened_task, piapi_task
from receiver.errors import BadRequest, ProviderRefused, RingbackError, Unavailable
from receiver.providers import Refused
from receiver.storage.audit import audit
from receiver.storage.large_rows import read_first
from receiver.storage.tasks import (
    TaskFilter,
    count_active,
    count_tasks,
    large_tasks,
    models_of,
    newest_active,
    shortened_tasks,
    task_by_id,
    tasks_matching,
    tasks_to_cancel,
)

MOST_ACTIVE_LISTED = 100
"""How many active tasks of a family are listed, the newest; the counts are of all."""
_MOST_ACTIVE_READ = 2000
_CANCELLABLE = ("queued", "staged", "pending")
_MOST_CANCELLED = 1000
_CANCELS_AT_ONCE = 16


async def create_task(call: Call) -> Reply:
    """`POST /api/v1/task`: create a task; wait for the provider's response, to pass on a refusal unchanged."""
    wanted = await call.body(CreateTask)
    uid = call.new_id()
    if call.is_resumed and (earlier := await call.services.database.read(task_by_id(call.organization_id, uid))):
        check_not_refused(earlier[0])
        return Reply(piapi_task(earlier[0]))
    tracker, wait = call.services.tracker, call.services.settings.submit_wait_seconds
    size = len(await call.raw())
    await know_accounts(call, [wanted])
    with await call.services.quotas.begin_creates(call.organization_id, 1, size) as admission:
        request = task_request(call, wanted, uid, await read_callback(call, webhook_config_of(wanted)))
        call.span.set(task_id=uid, provider=request.provider, model=request.model)
        key, outcome = await tracker.create(request, wait=wait, size=size, stored=admission.stored)
    if isinstance(outcome, Refused):
        raise ProviderRefused(outcome.message, status=outcome.status, body=outcome.body, code=outcome.code)
    try:
        task = await tracker.created(request, key)
    except Unavailable:  # it is stored and may be at the provider: after an error the client would create it again
        task = initial_task(request)
    return Reply(piapi_task(task))


async def get_task(call: Call) -> Reply | Later:
    """`GET /api/v1/task/{id}`: return a task, at once or when it has ended."""
    return await reply_with_task(call, call.query(WaitQuery), _reply)


async def cancel_task(call: Call) -> Reply:
    """`DELETE /api/v1/task/{id}`, `POST /api/v1/task/{id}/cancel`: cancel a task, at the provider too.

    One of PiAPI's own clients uses the `POST`.
    """
    task, message = await cancelled(call)
    return Reply(piapi_task(task), message=message)


async def cancel_tasks(call: Call) -> Reply:
    """`DELETE /api/v1/tasks?created_before=&model=`: cancel many tasks; both parameters are required.

    `model` is `all`, a family, or a model of the organization's tasks. Raises `BadRequest` for any other.
    """
    query = call.query(CancelQuery)
    models = await _models_to_cancel(call, query.model)
    found: list[dict[str, Any]] = []
    for status in _CANCELLABLE:
        wanted = TaskFilter(
            organization_id=call.organization_id,
            status=status,
            models=models,
            created_before=query.created_before,
        )
        found += await call.services.database.read(tasks_to_cancel(wanted, _MOST_CANCELLED - len(found)))
    if found:
        actor, asked = call.actor(), {"created_before": iso(query.created_before), "model": query.model}
        asked_for = difference(None, {**asked, "tasks": len(found)})
        await call.services.database.writer.run(lambda tx: audit(tx, actor, "task.cancel_many", None, asked_for))
    limit = asyncio.Semaphore(_CANCELS_AT_ONCE)
    results = await asyncio.gather(*(_cancel(call, task, limit) for task in found))
    cancelled = [uid for uid in results if uid is not None]
    data = {"cancelled": cancelled, "not_cancelled": len(found) - len(cancelled)}
    return Reply(data, message=f"{len(cancelled)} of {len(found)} tasks were cancelled")


async def account_active(call: Call) -> Reply:
    """`GET /account/active_tasks`: list the tasks that have not ended, by family, with their numbers by state.

    The numbers are of all; of each family the newest 100 are listed.
    """
    read = call.services.database.read
    data = {key: _no_active() for key in ALWAYS_ACTIVE_KEYS}
    for row in await read(count_active(call.organization_id)):
        counts = data.setdefault(active_key(row["model"]), _no_active())
        counts[f"{_active_state(row['status'])}_count"] += row["count"]
    for row in await read(newest_active(call.organization_id, MOST_ACTIVE_LISTED, _MOST_ACTIVE_READ)):
        listed = data.setdefault(active_key(row["model"]), _no_active())["active_tasks"]
        if len(listed) < MOST_ACTIVE_LISTED:
            listed.append(piapi_active_task(row))
    return Reply(data)


async def account_info(call: Call) -> ASGIApp:
    """`GET /account/info`: return what the provider says of its account; of a large refusal its message.

    It is for an organization whose own the provider account is.
    """
    await require_provider_account(call, "what the provider says about its account")
    status, body = await call.services.piapi.account_info()
    if status >= 400:
        body = bounded_refusal(body, status, f"the provider answered with HTTP {status}")
    return Response(orjson.dumps(body), status, media_type="application/json")


async def histories(call: Call) -> Reply:
    """`GET /api/open/tasks/histories`: list tasks, newest first.

    Those beyond 4 MiB have no large documents, which `meta.is_shortened` tells.
    """
    query = call.query(HistoryQuery)
    wanted = TaskFilter(
        organization_id=call.organization_id,
        models=await _models(call, query.model),
        created_after=query.start_time,
        created_before=query.end_time,
    )
    read = call.services.database.read
    matching = large_tasks(tasks_matching(wanted, query.page_size, (query.page - 1) * query.page_size))
    rows, rest = await read_first(read, matching, call.hold)
    total = (await read(count_tasks(wanted)))[0]["count"]
    shortened = await read(shortened_tasks(rest)) if rest else []
    items = [*map(piapi_task, rows), *map(piapi_shortened_task, shortened)]
    page = {"data": items, "page": query.page, "size": query.page_size, "total": total}
    # Earlier versions of Ringback had these two names.
    return Reply({**page, "list": items, "page_size": query.page_size})


async def _models(call: Call, wanted: str) -> list[str] | None:
    """Return the models of the organization's tasks that a client means by `wanted`; None for all."""
    if not wanted or wanted.strip().lower() == ALL_MODELS:
        return None
    rows = await call.services.database.read(models_of(call.organization_id))
    return models_wanted(wanted, [row["model"] for row in rows])


async def _models_to_cancel(call: Call, wanted: str) -> list[str] | None:
    models = await _models(call, wanted)
    if models == [] and family_named(wanted) is None:
        names = ", ".join([ALL_MODELS, *family_names()])
        raise BadRequest(
            f"no family of models has this name, and none of your tasks has such a model; use one of {names}",
            code="invalid_query_params",
            param="model",
        )
    return models


def _no_active() -> dict[str, Any]:
    return {"staged_count": 0, "pending_count": 0, "processing_count": 0, "active_tasks": []}


def _active_state(status: str) -> str:
    return TaskStatus.PENDING if status == TaskStatus.QUEUED else status


async def _cancel(call: Call, task: Mapping[str, Any], limit: asyncio.Semaphore) -> str | None:
    """Cancel a task; return its id, or None if it could not be cancelled."""
    async with limit:
        try:
            await call.services.tracker.cancel(task)
        except RingbackError:
            return None
    return str(task["uid"])


async def _reply(_call: Caller, task: Mapping[str, Any]) -> Reply:
    return Reply(piapi_task(task))
