"""`/api/v1/tasks`: Ringback's own endpoints for tasks."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.lists import page, read_cursor
from receiver.api.long_poll import Caller, Later
from receiver.api.organizations import require_provider_account
from receiver.api.repetition import after_work, cancelled
from receiver.api.runs import find_run_ids
from receiver.api.schemas import AdoptTask, GetTask, TaskEventQuery, TaskQuery, WaitForTasks
from receiver.api.task_requests import know_accounts, reply_with_task
from receiver.domain.representations import (
    brief_event,
    brief_task,
    native_attempts,
    native_event,
    native_task,
    task_standing,
)
from receiver.errors import BadRequest
from receiver.storage.events import events_of_task, large_events_of_task
from receiver.storage.large_rows import read_first
from receiver.storage.task_page import page_of_tasks
from receiver.storage.task_search import search_tasks
from receiver.storage.tasks import TaskFilter, brief_tasks, large_tasks, task_by_id, tasks_by_keys


async def list_tasks(call: Call) -> Reply:
    """`GET /api/v1/tasks`: list tasks, newest first; a filter of the form `metadata[k]=v` is for their own metadata."""
    query = call.query(TaskQuery)
    run_ids = await find_run_ids(call, [] if query.run_id is None else [query.run_id])
    wanted = TaskFilter(
        organization_id=call.organization_id,
        status=query.status,
        model=query.model,
        task_type=query.task_type,
        provider=query.provider,
        run_uid=run_ids[0] if run_ids else None,
        created_after=query.created_after,
        created_before=query.created_before,
        metadata=query.metadata,
        before=read_cursor(query.cursor),
    )
    most, read = query.limit + 1, call.services.database.read
    if query.q is None:
        matching = await page_of_tasks(read, wanted, most)
    else:
        matching = tasks_by_keys(await search_tasks(read, wanted, query.q, call.services.providers, most))
    if query.brief:
        brief = await read(brief_tasks(matching))
        return page(brief, query.limit, await _views(call, brief, brief_task))
    rows, rest = await read_first(read, large_tasks(matching), call.hold)
    return page(rows, query.limit, await _views(call, rows), is_cut=bool(rest))


async def get_task(call: Call) -> Reply | Later:
    """`GET /api/v1/tasks/{id}`: return a task, at once or when it has ended; with its attempts if it had several."""
    query = call.query(GetTask)
    return await reply_with_task(call, query, _reply_with_attempts if query.include == "attempts" else _reply)


async def wait_for_tasks(call: Call) -> Later:
    """`POST /api/v1/tasks/wait`: how far several tasks are, when any or all of them have ended: it changes nothing."""
    wanted = await call.body(WaitForTasks)
    ids, for_all = list(dict.fromkeys(wanted.task_ids)), wanted.mode == "all"
    return Later(partial(_reply_when_ended, ids, wanted.timeout_seconds, for_all))


async def _reply_when_ended(ids: Sequence[str], seconds: float, for_all: bool, call: Caller) -> Reply:
    with call.services.quotas.waiting(call.organization_id):
        rows, is_over = await call.services.task_waits.wait(call.organization_id, ids, seconds, for_all=for_all)
    tasks = [task_standing(row) for row in rows]
    ended = [task["task_id"] for task in tasks if task["has_ended"]]
    mode = "all" if for_all else "any"
    return Reply({"object": "wait", "mode": mode, "timed_out": not is_over, "ended": ended, "tasks": tasks}, "wait")


async def list_events(call: Call) -> Reply:
    """`GET /api/v1/tasks/{id}/events`: list a task's events, newest first."""
    query = call.query(TaskEventQuery)
    task = await call.services.tracker.task(call.organization_id, call.path("task_id"), call.hold)
    wanted = large_events_of_task(events_of_task(task["id"], query.limit + 1, read_cursor(query.cursor)))
    rows, rest = await read_first(call.services.database.read, wanted, call.hold)
    view = brief_event if query.brief else native_event
    return page(rows, query.limit, (view(task, row) for row in rows), is_cut=bool(rest))


async def refresh_task(call: Call) -> Reply:
    """`POST /api/v1/tasks/{id}/refresh`: poll a task at its provider now, and return it."""
    return Reply(await _view(call, await call.services.tracker.refresh(call.organization_id, call.path("task_id"))))


async def cancel_task(call: Call) -> Reply:
    """`POST /api/v1/tasks/{id}/cancel`: cancel a task, at its provider too."""
    task, _ = await cancelled(call)
    return Reply(await _view(call, task))


async def retry_task(call: Call) -> Reply:
    """`POST /api/v1/tasks/{id}/retry`: start another attempt at a task that failed or was cancelled."""
    tracker = call.services.tracker
    task = await tracker.task(call.organization_id, call.path("task_id"))
    found = await call.found(str(task["attempt"]))
    is_first = int(found) == task["attempt"]
    with await call.services.quotas.begin_again(call.organization_id) if is_first else nullcontext():
        await tracker.retry(task, past_attempt=int(found) if call.is_resumed else None)
    return await after_work(_reply_with(call, tracker.task(call.organization_id, task["uid"])))


async def adopt_task(call: Call) -> Reply:
    """`POST /api/v1/tasks/adopt`: track a task that was created outside Ringback."""
    wanted = await call.body(AdoptTask)
    if wanted.provider not in call.services.providers:
        names = ", ".join(sorted(call.services.providers))
        raise BadRequest(f"there is no provider with this name; known are {names}", param="provider")
    tracker = call.services.tracker
    await know_accounts(call, [wanted])
    account_id = call.services.accounts.known.choose(call.organization_id, wanted.provider, wanted.account)
    with await _adoption(call, wanted, account_id):
        task = await tracker.adopt(
            call.organization_id,
            wanted.provider,
            wanted.provider_task_id,
            wanted.metadata,
            account_id=account_id,
        )
    call.span.set(task_id=task["uid"], provider=task["provider"], model=task["model"])
    return await _reply(call, task)


async def _adoption(call: Call, wanted: AdoptTask, account_id: int | None) -> AbstractContextManager[object]:
    """Return the admission of a task that is not tracked yet; none is needed for one of the organization's own.

    Raises `NotAllowed` where the provider account is not the organization's, and as `Quotas.begin_creates` does.
    """
    if await call.services.database.read(task_by_id(call.organization_id, wanted.provider_task_id)):
        return nullcontext()
    if not call.services.accounts.known.is_own(call.organization_id, account_id):
        await require_provider_account(call, "a task that is not tracked here")
    return await call.services.quotas.begin_creates(call.organization_id, 1, len(await call.raw()))


async def _view(call: Caller, task: Mapping[str, Any]) -> dict[str, Any]:
    return next(await _views(call, [task]))


async def _views(
    call: Caller, tasks: Sequence[Mapping[str, Any]], view: Callable[[Mapping[str, Any]], dict[str, Any]] = native_task
) -> Iterator[dict[str, Any]]:
    """Return tasks as they are answered, with the name of the account that each uses."""
    names = await call.services.accounts.known.names(task["account_id"] for task in tasks)
    return ({**view(task), "account": names[task["account_id"]]} for task in tasks)


async def _reply_with(call: Call, reading: Awaitable[Mapping[str, Any]]) -> Reply:
    return await _reply(call, await reading)


async def _reply(call: Caller, task: Mapping[str, Any]) -> Reply:
    return await _reply_with_attempts(call, task) if task["attempt"] > 1 else Reply(await _view(call, task))


async def _reply_with_attempts(call: Caller, task: Mapping[str, Any]) -> Reply:
    attempts = native_attempts(task, await call.services.tracker.attempts(task))
    return Reply({**await _view(call, task), "attempts": attempts})
