"""All paths of the dashboard."""

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.dashboard import live, new_run, run, runs, sign_in, task, tasks
from receiver.dashboard.pages import SIGN_IN, action, open_page, page
from receiver.dashboard.static_files import serve_static
from receiver.dashboard.visit import Visit


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [
        page("/", _first),
        Route("/static/{version}/{name}", serve_static, methods=["GET"]),
        page("/live", live.live),
        open_page(SIGN_IN, sign_in.sign_in_page),
        open_page(SIGN_IN, sign_in.sign_in, ["POST"]),
        open_page("/theme", sign_in.choose_theme, ["POST"]),
        action("/sign-out", sign_in.sign_out),
        page("/tasks", tasks.show_tasks),
        page("/tasks/{task_id}", task.show_task),
        page("/tasks/{task_id}/file", task.download),
        action("/tasks/{task_id}/{act}", task.act),
        page("/runs", runs.show_runs),
        page("/runs/new", new_run.show_form),
        action("/runs/new", new_run.create),
        page("/runs/{run_id}", run.show_run),
        page("/runs/{run_id}/file", run.download),
        action("/runs/{run_id}/{act}", run.act),
    ]


async def _first(visit: Visit) -> Response:
    return visit.redirect("/tasks")
