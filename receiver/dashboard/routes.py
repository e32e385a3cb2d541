"""All paths of the dashboard."""

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.dashboard import docs, live, sign_in, task, tasks
from receiver.dashboard.pages import SIGN_IN, action, open_page, page, public_page
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
        public_page("/docs", docs.show_docs),
        public_page("/docs/api", docs.show_reference),
        public_page("/docs/{guide}", docs.show_guide),
        public_page("/llms.txt", docs.show_index),
        page("/tasks", tasks.show_tasks),
        page("/tasks/{task_id}", task.show_task),
        page("/tasks/{task_id}/file", task.download),
        action("/tasks/{task_id}/{act}", task.act),
    ]


async def _first(visit: Visit) -> Response:
    return visit.redirect("/tasks")
