"""`POST /api/v1/tasks`: up to a thousand tasks in one call, each accepted or refused separately."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import orjson

from receiver.api.dialects import Reply, error_object
from receiver.api.endpoint import Call, check
from receiver.api.schemas import CreateTask
from receiver.api.task_requests import know_accounts, read_callback, task_request, webhook_config_of
from receiver.errors import BadRequest, RingbackError
from receiver.storage.tasks import task_ids_among
from receiver.tracking.create import Callback, TaskRequest

MOST_TASKS = 1000
_CHECKS_AT_ONCE = 32

CheckedItem = CreateTask | RingbackError
"""A task as requested, or why it is refused."""


async def create_tasks(call: Call) -> Reply:
    """Create up to a thousand tasks; they are sent to the provider in the background.

    Those that are valid are stored in one transaction.

    If the organization may not create as many now, the whole call is refused, and nothing is stored. Otherwise the
    response is 202, with an id or an error for each task, even if all of them are errors.
    """
    wanted = await call.read_json(lambda body: [_check_item(item) for item in _items(body)])
    uids = [call.new_id() for _ in wanted]
    existing = await _made_before(call, uids)
    new = [uid for uid, each in zip(uids, wanted, strict=True) if isinstance(each, CreateTask) and uid not in existing]
    size = len(await call.raw())
    quotas = call.services.quotas
    with await quotas.begin_creates(call.organization_id, len(new), size) if new else nullcontext():
        callbacks = await _callbacks(call, wanted)
        await know_accounts(call, (each for each in wanted if isinstance(each, CreateTask)))
        requested = [_request(call, each, uid, callbacks) for each, uid in zip(wanted, uids, strict=True)]
        requests = [each for each in requested if isinstance(each, TaskRequest) and each.uid not in existing]
        call.span.set(tasks=len(requests))
        if requests:
            await call.services.tracker.create_bulk(requests, size=size)
    data = [
        {"index": index, "error": error_object(each)}
        if isinstance(each, RingbackError) and uid not in existing
        else {"index": index, "task_id": uid}
        for index, (each, uid) in enumerate(zip(requested, uids, strict=True))
    ]
    return Reply({"object": "list", "data": data}, "list", status=202)


def _items(body: Mapping[str, Any]) -> list[Any]:
    items = body.get("tasks")
    if not isinstance(items, list):
        raise BadRequest("must be a list of tasks", param="tasks")
    if not 1 <= len(items) <= MOST_TASKS:
        raise BadRequest(f"must have 1 to {MOST_TASKS} tasks; it has {len(items)}", param="tasks")
    return items


def _check_item(item: Any) -> CheckedItem:
    try:
        return check(CreateTask, item)
    except RingbackError as error:
        return error


async def _callbacks(call: Call, wanted: Sequence[CheckedItem]) -> dict[bytes, Callback | RingbackError | None]:
    """Return the clients' own callbacks by their serialised `webhook_config`: most calls have one for all tasks."""
    configs = {_config_key(each): webhook_config_of(each) for each in wanted if isinstance(each, CreateTask)}
    limit = asyncio.Semaphore(_CHECKS_AT_ONCE)

    async def read(config: Any) -> Callback | RingbackError | None:
        try:
            async with limit:
                return await read_callback(call, config)
        except RingbackError as error:
            return error

    return dict(zip(configs, await asyncio.gather(*map(read, configs.values())), strict=True))


def _request(
    call: Call, wanted: CheckedItem, uid: str, callbacks: Mapping[bytes, Callback | RingbackError | None]
) -> TaskRequest | RingbackError:
    if isinstance(wanted, RingbackError):
        return wanted
    callback = callbacks[_config_key(wanted)]
    if isinstance(callback, RingbackError):
        return callback
    try:
        return task_request(call, wanted, uid, callback)
    except BadRequest as error:
        return error


def _config_key(wanted: CreateTask) -> bytes:
    config = webhook_config_of(wanted)
    return b"" if config is None else orjson.dumps(config)


async def _made_before(call: Call, uids: Sequence[str]) -> set[str]:
    """Return the ids of those tasks that an earlier request with the same idempotency key created."""
    if not call.is_resumed:
        return set()
    return {row["uid"] for row in await call.services.database.read(task_ids_among(call.organization_id, uids))}
