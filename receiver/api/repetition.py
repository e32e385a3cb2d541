"""How a POST that is repeated with its `Idempotency-Key` learns what an earlier request with the key has done.

It matters when the first request has no saved response: the process died, the answer to a commit is missing, or what
was stored could not be read. Either the work creates something, whose ids are the same for every request with the key
(`Call.new_id`), or it changes something, whose state the first request stored with the key (`Call.found`).

| POST | learns it by | if it was done, it returns |
|---|---|---|
| `/api/v1/task` | the task's id | the task as it is now, or the refusal that it met |
| `/v1/predictions`, `/v1/models/...`, `/v1/deployments/...` | the task's id | the same as a prediction |
| `/api/v1/tasks` | the tasks' ids | the ids; tasks that are missing are created |
| `/api/v1/tasks/cancel`, `.../tasks/retry`, `.../tasks/refresh` | the bulk action's id | the bulk action |
| `/api/v1/bulk-actions/{id}/cancel` | the status found was another, and is `cancelled` now | the bulk action |
| `/api/v1/tasks/wait` | nothing: it only reads, so the key is not obeyed, and it waits again | how far the tasks are |
| `/api/v1/tasks/adopt` | the provider's id: adopting twice is adopting once | the task |
| `.../tasks/{id}/refresh` | nothing: it polls again, which changes nothing | the task |
| `.../{id}/cancel` of a task, also as a prediction | the last event of a cancel is not the one found | the task |
| `.../tasks/{id}/retry` | the attempt is past the one found | the task |
| `/api/v1/runs` | the run's id | the run's id |
| `.../runs/{id}/cancel` | the last event of a cancel is not the one found | the run |
| `.../runs/{id}/retry` | the event of the run's end is not the one found | the run |
| `/api/v1/webhooks` | the webhook's id | the webhook, with the secret that Ringback made |
| `.../rotate-secret` | the stored secret is not the one found | the webhook, with its present secret |
| `.../webhooks/{id}/test` | nothing: it changes nothing, and sends another ping | the new ping's result |
| `.../replay`, `.../recover` | the replay's id | the replay |
| `.../replays/{id}/cancel` | the status found was another, and is `cancelled` now | the replay |
| `.../deliveries/{id}/retry` | status or time of its end are not those found | the delivery |
| `/api/v1/keys` | the key's id | the key with a new secret: no client got the first one |
| `/api/v1/dashboard-links` | nothing: it makes another link | a new link |
| `/api/v1/master-keys/rotate` | nothing: what is encrypted with the newest key stays as it is | what it found |
| `/api/v1/providers/{provider}/accounts` | the account's id | the account |
| `.../accounts/{account}/check` | nothing: it changes nothing, and asks the provider again | what it shows |
| `/api/v1/organizations` | the organization's id | the organization, its first key with a new secret |

The state may also have moved because of another request, without the key; then the answer shows it as it is, and
nothing is done in addition. Requests that are passed on to the provider do not obey the key.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from models import TERMINAL, TaskStatus
from receiver.api.endpoint import Call
from receiver.errors import Conflict, NotFound, OutcomeUnknown, ProviderRefused, Unavailable
from receiver.storage.database import Query
from receiver.storage.events import newest_cancellation

Result = TypeVar("Result")


async def has_moved(call: Call, state: Any) -> bool:
    """Return whether the state is past the one that the key's first request found; False for a first request.

    It is called before the work begins.
    """
    return await call.found(str(state)) != str(state)


async def after_work(reading: Awaitable[Result]) -> Result:
    """Read what the response shows, after the work is on disk.

    Raises `OutcomeUnknown` where that cannot be read: an `Unavailable` would say that the request may be sent again.
    """
    try:
        return await reading
    except Unavailable as error:
        raise OutcomeUnknown(
            f"the request was done, but its result cannot be read at present ({error.message}): read the resource, or "
            "repeat the same request with the same Idempotency-Key"
        ) from error


async def last_cancellation(call: Call, query: Query) -> str:
    """Return what tells the last cancellation of a task or run from an earlier one; a retry leaves it as it is.

    It is not read for a request without a key, which compares nothing.
    """
    if call.claim is None:
        return ""
    return str((await call.services.database.read(query))[0]["newest"])


async def cancelled(call: Call) -> tuple[Mapping[str, Any], str]:
    """Cancel the path's task, unless an earlier request with the key did; return its row, and the provider's message.

    Raises as `Tracker.cancel` does, and `NotFound`.
    """
    tracker = call.services.tracker
    task = await tracker.task(call.organization_id, call.path("task_id"))
    cancellation = await last_cancellation(call, newest_cancellation(task_key=task["id"]))
    found_status, _, found_cancellation = (await call.found(f"{task['status']} {cancellation}")).partition(" ")
    if cancellation != found_cancellation:
        return await tracker.task(call.organization_id, task["uid"]), "cancelled"
    was_ended = found_status in TERMINAL
    try:
        message = await tracker.cancel(task)
    except (Conflict, NotFound, ProviderRefused):
        # The earlier request may have cancelled it at the provider, which does not do that twice.
        if not call.is_resumed or was_ended:
            raise
        task = await tracker.refresh(call.organization_id, task["uid"])
        if task["status"] != TaskStatus.CANCELLED:
            raise
        return task, "cancelled"
    return await after_work(tracker.task(call.organization_id, task["uid"])), message
