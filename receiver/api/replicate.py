"""The endpoints of Replicate's API, over the tasks of any provider: its clients need only another base URL.

Source: `receiver/api/CONTRACTS.md`, "Replicate".
"""

import re
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from models import TERMINAL, EventType
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.lists import first_items, read_cursor, write_cursor
from receiver.api.long_poll import Caller, Later
from receiver.api.openapi import reader_address
from receiver.api.repetition import cancelled
from receiver.api.replicate_schemas import CreatePrediction, CreateVersionPrediction, PredictionQuery
from receiver.api.task_requests import check_not_refused, initial_task
from receiver.domain.predictions import (
    EVENTS,
    REPLICATE,
    TASK_TYPE,
    Addresses,
    NamedModel,
    prediction,
    read_model,
    starting,
)
from receiver.errors import BadRequest, OrganizationRateLimited, ProviderRefused, Unavailable
from receiver.lookups.resolver import looked_up_for
from receiver.providers import PROVIDER_UNAUTHORIZED, Refused
from receiver.providers.registry import unknown_provider
from receiver.storage.large_rows import read_first
from receiver.storage.organizations import organization_by_key
from receiver.storage.task_page import page_of_tasks
from receiver.storage.tasks import TaskFilter, large_tasks, task_by_id
from receiver.tracking.create import Callback, TaskRequest

PAGE = 100
"""Predictions on a page of the list, as at Replicate."""
MOST_WAIT_SECONDS = 55
"""Version 2 of the client gives up after 60 s and creates the prediction again; so long do proxies wait, too."""
_WAIT = re.compile(r"\s*wait\s*(?:=\s*([0-9]{1,6})\s*)?", re.IGNORECASE)
_LONGEST_NAME = 200
"""Characters of a model or a task type, as everywhere."""
_DEFAULT_EVENTS = ("output", "completed")
_NO_TIME = "1970-01-01T00:00:00.000000Z"


async def create_prediction(call: Call) -> Reply | Later:
    """`POST /v1/predictions`: create a prediction of the model that `version` names, at the provider that it names.

    With `Prefer: wait` or `wait=n` it is answered when it has ended, or after n seconds (55 at most), then with 202.
    """
    wanted = await call.body(CreateVersionPrediction)
    return await _create(call, wanted, wanted.version, "version")


async def create_model_prediction(call: Call) -> Reply | Later:
    """`POST /v1/models/{owner}/{name}/predictions`: create a prediction of this model.

    An owner that begins with a provider's name and a colon names the provider. `Prefer` is as for `/v1/predictions`.
    """
    wanted = await call.body(CreatePrediction)
    return await _create(call, wanted, f"{call.path('owner')}/{call.path('name')}", "model")


async def create_deployment_prediction(call: Call) -> Reply | Later:
    """`POST /v1/deployments/{owner}/{name}/predictions`: create a prediction of a deployment at Replicate."""
    wanted = await call.body(CreatePrediction)
    return await _create(call, wanted, f"{REPLICATE}:deployments/{call.path('owner')}/{call.path('name')}", "model")


async def get_prediction(call: Call) -> Reply:
    """`GET /v1/predictions/{id}`: return a task of any provider as a prediction."""
    task = await call.services.tracker.task(call.organization_id, call.path("task_id"), call.hold)
    return Reply(prediction(task, _addresses(call)))


async def list_predictions(call: Call) -> Reply:
    """`GET /v1/predictions`: list the tasks of all providers as predictions, newest first, 100 on a page."""
    query = call.query(PredictionQuery)
    wanted = TaskFilter(
        organization_id=call.organization_id,
        created_after=query.from_then,
        created_before=query.created_before,
        before=read_cursor(query.cursor),
    )
    read, addresses = call.services.database.read, _addresses(call)
    rows, rest = await read_first(read, large_tasks(await page_of_tasks(read, wanted, PAGE + 1)), call.hold)
    shown = first_items((prediction(row, addresses) for row in rows), PAGE)
    following = None
    if len(rows) > len(shown) or rest:
        given = {name: call.request.query_params.get(name) for name in ("created_after", "created_before")}
        after = {
            "cursor": write_cursor(rows[len(shown) - 1]["id"]),
            **{name: text for name, text in given.items() if text},
        }
        following = f"{addresses.base}/v1/predictions?{urlencode(after)}"
    return Reply({"previous": None, "next": following, "results": shown})


async def cancel_prediction(call: Call) -> Reply:
    """`POST /v1/predictions/{id}/cancel`: cancel a task, at its provider too."""
    task, _ = await cancelled(call)
    return Reply(prediction(task, _addresses(call)))


async def get_secret(call: Call) -> Reply:
    """`GET /v1/webhooks/default/secret`: return the secret that signs what is sent to the `webhook` of predictions.

    It is the organization's own, and another one after a change of the master key; the earlier one signs beside it as
    long as that key is there.
    """
    return Reply({"key": call.services.messages.callback_secrets(call.principal.organization_uid)[0]})


async def get_account(call: Call) -> Reply:
    """`GET /v1/account`: return the organization of the key as an account."""
    (row,) = await call.services.database.read(organization_by_key(call.organization_id))
    return Reply({"type": "organization", "username": row["name"], "name": row["name"]})


async def get_version(call: Call) -> Reply:
    """`GET /v1/models/{owner}/{name}/versions/{id}`: return a version, of which nothing but its id is known.

    Replicate's client asks for it when it runs `owner/name:version`.
    """
    version = {"id": call.path("version_id"), "created_at": _NO_TIME, "cog_version": "0.9.0", "openapi_schema": {}}
    return Reply(version)


async def _create(call: Call, wanted: CreatePrediction, text: str, field: str) -> Reply | Later:
    began, seconds = monotonic(), _seconds_to_wait(call)
    named = _named_model(call, text, field)
    uid = call.new_id()
    if call.is_resumed and (earlier := await call.services.database.read(task_by_id(call.organization_id, uid))):
        check_not_refused(earlier[0])
        return _created(_addresses(call), earlier[0], waited=seconds is not None)
    tracker, submit_wait = call.services.tracker, call.services.settings.submit_wait_seconds
    size = len(await call.raw())
    with await call.services.quotas.begin_creates(call.organization_id, 1, size) as admission:
        request = TaskRequest(
            uid=uid,
            organization_id=call.organization_id,
            provider=named.provider,
            account_id=call.services.accounts.known.choose(call.organization_id, named.provider, None),
            model=named.model,
            task_type=named.task_type or TASK_TYPE,
            input=wanted.input,
            callback=await _callback(call, wanted),
        )
        call.span.set(task_id=uid, provider=request.provider, model=request.model)
        wait = submit_wait if seconds is None else min(submit_wait, seconds)
        key, outcome = await tracker.create(request, wait=wait, size=size, stored=admission.stored)
    if isinstance(outcome, Refused):
        own = outcome.detail if named.provider == REPLICATE else None  # its problem, as it came
        body = own if isinstance(own, dict) else None
        raise ProviderRefused(_refusal(named, outcome), status=outcome.status, body=body, code=outcome.code)
    addresses, left = _addresses(call), 0.0 if seconds is None else seconds - (monotonic() - began)
    if left <= 0:
        return _created(addresses, await _as_it_is(call, request, key, 0), waited=seconds is not None)

    async def created(call: Caller) -> Reply:
        return _created(addresses, await _as_it_is(call, request, key, left), waited=True)

    return Later(created)


async def _as_it_is(call: Caller, request: TaskRequest, key: int, seconds: float) -> Mapping[str, Any]:
    """Return a task that was just created with this row key, when it has ended or after `seconds`.

    It is stored and may be at the provider: after an error the client would create it again, so none is raised.
    """
    tracker = call.services.tracker
    try:
        if seconds > 0:
            with call.services.quotas.waiting(call.organization_id):
                return await tracker.wait(call.organization_id, request.uid, seconds, call.hold)
    except OrganizationRateLimited:
        pass
    except Unavailable:
        return initial_task(request)
    try:
        return await tracker.created(request, key)
    except Unavailable:
        return initial_task(request)


def _created(addresses: Addresses, task: Mapping[str, Any], *, waited: bool) -> Reply:
    shown = prediction(task, addresses)
    if waited and task["status"] not in TERMINAL:
        return Reply(starting(shown), status=202)
    return Reply(shown, status=201)


def _named_model(call: Call, text: str, field: str) -> NamedModel:
    """Return what the text of a model names. Raises `BadRequest`, with the nearest names of providers."""
    named = read_model(text.strip())
    if named.provider not in call.services.providers:
        raise BadRequest(unknown_provider(named.provider), param=field)
    if not 0 < len(named.model) <= _LONGEST_NAME or len(named.task_type or "") > _LONGEST_NAME:
        raise BadRequest(f"must name a model of 1 to {_LONGEST_NAME} characters", param=field)
    if not named.task_type and named.provider == call.services.piapi.name:
        example = f"{named.provider}:{named.model}@txt2img"
        raise BadRequest(f"a task of {named.provider} needs a task type after an @, such as {example}", param=field)
    return named


def _refusal(named: NamedModel, outcome: Refused) -> str:
    if outcome.code == PROVIDER_UNAUTHORIZED and named.provider == REPLICATE:
        return f"{outcome.message}; a model of another provider is named provider:model"
    return outcome.message


def _seconds_to_wait(call: Call) -> int | None:
    """Return how long a client prefers to wait for the end, None if it does not.

    Raises `BadRequest` for a deadline, which is not kept: the client would pay for more than it wanted.
    """
    headers = call.request.headers
    if "cancel-after" in headers:
        raise BadRequest("is not supported: cancel the prediction yourself", param="Cancel-After")
    for preference in ",".join(headers.getlist("prefer")).split(","):
        if (match := _WAIT.fullmatch(preference)) is not None:
            return min(MOST_WAIT_SECONDS, max(1, int(match[1] or MOST_WAIT_SECONDS)))
    return None


async def _callback(call: Call, wanted: CreatePrediction) -> Callback | None:
    """Return the client's own webhook, checked; None if it names none. Raises `BadRequest`."""
    field, url, words = "webhook", wanted.webhook, [*(wanted.webhook_events_filter or _DEFAULT_EVENTS)]
    if url and wanted.webhook_completed not in (None, "", url):
        raise BadRequest("give webhook or webhook_completed, not both", param="webhook_completed")
    if not url:
        field, url, words = "webhook_completed", wanted.webhook_completed, ["completed"]
    if not url:
        return None
    events: list[EventType] = sorted({event for word in words for event in EVENTS[word]})
    try:
        with looked_up_for(call.organization_id):
            return await call.services.subscriptions.replicate_callback(url, events)
    except BadRequest as error:
        raise BadRequest(error.message, code=error.code, param=field) from None


def _addresses(call: Call) -> Addresses:
    return Addresses(reader_address(call.request).rstrip("/"), call.services.settings.dashboard)
