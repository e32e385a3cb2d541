"""Acting on the tasks that were selected in the list: each by itself, and what was refused is told, with its reason."""

import asyncio

from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.responses import Response

from receiver.api import tasks as api
from receiver.api.endpoint import EndpointHandler
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.bulk_actions import tasks_in_words
from receiver.dashboard.visit import BACK, Visit, local_path

FIELD = "task:"
"""The name of a checkbox is this and the id of its task."""
_MOST = 200
"""Tasks of the longest page."""
_AT_ONCE = 8
_SECONDS = 20.0
"""After this no further task is begun: who waits for the page has waited long enough."""
_ACTS: dict[str, tuple[EndpointHandler, str]] = {
    "refresh": (api.refresh_task, "asked about"),
    "cancel": (api.cancel_task, "cancelled"),
    "retry": (api.retry_task, "retried"),
}


class SelectedTask(Struct, frozen=True):
    """What became of a selected task: why it was refused, or an empty text, and its state afterwards if it was not."""

    task_id: str
    refused: str = ""
    status: str = ""


async def act_on_selected(visit: Visit) -> Response:
    """Refresh, cancel or retry the selected tasks."""
    name = visit.form.get("act", "")
    if name not in _ACTS:
        raise HTTPException(404)
    participle = _ACTS[name][1]
    ids = [each.removeprefix(FIELD) for each in visit.form if each.startswith(FIELD)]
    if not 0 < len(ids) <= _MOST:
        text = f"Select at most {_MOST} tasks." if ids else "No task was selected."
        return visit.done(text, otherwise="/tasks", kind="failed")
    outcomes = await _act_on_all(visit, name, ids)
    refused = [each for each in outcomes if each.refused]
    if not refused:
        return visit.done(f"{tasks_in_words(len(ids))} {_were(len(ids))} {participle}.", otherwise="/tasks")
    done = [each for each in outcomes if not each.refused]
    back = local_path(visit.form.get(BACK, "")) or "/tasks"
    title = f"{len(done)} of {tasks_in_words(len(ids))} {_were(len(ids))} {participle}"
    return visit.page("selected_tasks.html", title=title, done=done, refused=refused, back=visit.url(back))


async def _act_on_all(visit: Visit, name: str, ids: list[str]) -> list[SelectedTask]:
    loop, places = asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)
    over_at = loop.time() + _SECONDS

    async def act(task_id: str) -> SelectedTask:
        async with places:
            if loop.time() > over_at:
                return SelectedTask(task_id, f"not begun: the others took {_SECONDS:g} s. Select it again")
            try:
                task = await visit.ask(_ACTS[name][0], task_id=task_id)
            except ApiRefusal as refused:
                if refused.status in (401, 403):
                    raise
                return SelectedTask(task_id, refused.message)
            return SelectedTask(task_id, status=task["status"])

    return list(await asyncio.gather(*map(act, ids)))


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
