"""Turns a client's request for a task into one for `receiver.tracking`; used for single tasks and bulk calls."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from models import Submission, TaskStatus
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call, check
from receiver.api.long_poll import Caller, Later
from receiver.api.schemas import AdoptTask, CreateTask, WaitQuery, WebhookConfig
from receiver.clock import utc_now
from receiver.errors import BadRequest, ProviderRefused
from receiver.lookups.resolver import looked_up_for
from receiver.providers import PROVIDER_UNAUTHORIZED
from receiver.tracking.create import Callback, TaskRequest

_WEBHOOK_CONFIG = "webhook_config"


def task_request(call: Call, wanted: CreateTask, uid: str, callback: Callback | None) -> TaskRequest:
    """Return the request for `receiver.tracking.create`; `uid` is the id that the task will have.

    Raises `BadRequest` for an account that is not known; `know_accounts` looks for it.
    """
    config = {name: value for name, value in (wanted.config or {}).items() if name != _WEBHOOK_CONFIG}
    return TaskRequest(
        uid=uid,
        organization_id=call.organization_id,
        provider=wanted.provider,
        account_id=call.services.accounts.known.choose(call.organization_id, wanted.provider, wanted.account),
        model=wanted.model,
        task_type=wanted.task_type,
        input=wanted.input,
        callback=callback,
        config=config or None,
        metadata=wanted.metadata,
        max_attempts=wanted.retry.max_attempts,
        backoff_seconds=wanted.retry.backoff_seconds,
    )


async def know_accounts(call: Call, wanted: Iterable[CreateTask | AdoptTask]) -> None:
    """Look for accounts that these tasks name and this process does not know: another one may have just added them."""
    known = call.services.accounts.known
    for provider, name in {(each.provider, each.account) for each in wanted if each.account is not None}:
        if not known.is_known(call.organization_id, provider, name):
            await known.refresh()
            return


def webhook_config_of(wanted: CreateTask) -> Any:
    """Return the client's own `config.webhook_config`, unchecked; None if the request has none."""
    return (wanted.config or {}).get(_WEBHOOK_CONFIG)


async def read_callback(call: Call, webhook_config: Any) -> Callback | None:
    """Return a client's own callback, checked; None if the config names no endpoint. Raises `BadRequest`."""
    if _names_no_endpoint(webhook_config):
        return None
    wanted = check(WebhookConfig, webhook_config, within=f"config.{_WEBHOOK_CONFIG}")
    try:
        with looked_up_for(call.organization_id):
            return await call.services.subscriptions.callback(wanted.endpoint, wanted.secret)
    except BadRequest as error:
        raise BadRequest(error.message, code=error.code, param=f"config.{_WEBHOOK_CONFIG}.endpoint") from None


async def reply_with_task(
    call: Call, query: WaitQuery, reply: Callable[[Caller, Mapping[str, Any]], Awaitable[Reply]]
) -> Reply | Later:
    """Return what `reply` makes of the path's task: at once, or when it has ended if the query asks to wait.

    Raises `NotFound`, and what `reply` does.
    """
    task_id, seconds = call.path("task_id"), query.timeout_seconds
    if not query.wait_for_completion:
        return await reply(call, await call.services.tracker.task(call.organization_id, task_id, call.hold))
    return Later(partial(_reply_when_ended, task_id, seconds, reply))


async def _reply_when_ended(
    task_id: str, seconds: float, reply: Callable[[Caller, Mapping[str, Any]], Awaitable[Reply]], call: Caller
) -> Reply:
    with call.services.quotas.waiting(call.organization_id):
        task = await call.services.tracker.wait(call.organization_id, task_id, seconds, call.hold)
    return await reply(call, task)


def check_not_refused(task: Mapping[str, Any]) -> None:
    """Raise `ProviderRefused` if a task that an earlier request created was refused."""
    code = (task["error"] or {}).get("code")
    if task["submission"] == Submission.REFUSED and isinstance(code, int) and 400 <= code < 500:
        raise ProviderRefused(task["error"]["message"], status=code)
    if task["submission"] == Submission.REFUSED and code == PROVIDER_UNAUTHORIZED:
        raise ProviderRefused(task["error"]["message"], status=502, code=code)


def initial_task(request: TaskRequest) -> dict[str, Any]:
    """Return the row of a task that was just created, as far as it is known without reading it."""
    unknown = ("output", "meta", "detail", "logs", "error", "started_at", "ended_at", "provider_task_id")
    return {
        **dict.fromkeys(unknown),
        "uid": request.uid,
        "provider": request.provider,
        "model": request.model,
        "task_type": request.task_type,
        "status": TaskStatus.QUEUED,
        "attempt": 1,
        "input": request.input,
        "config": request.config,
        "callback_url": request.callback.endpoint_url if request.callback is not None else None,
        "created_at": utc_now(),
    }


def _names_no_endpoint(webhook_config: Any) -> bool:
    """Whether a config means "no callback": clients write that as null, as an empty value or with an empty endpoint."""
    if not isinstance(webhook_config, dict):
        return not webhook_config
    endpoint = webhook_config.get("endpoint")
    return endpoint is None or (isinstance(endpoint, str) and not endpoint.strip())
