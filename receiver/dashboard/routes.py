"""All paths of the dashboard."""

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.dashboard import audit, inbound, keys, live, organizations, sign_in, task, tasks
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
        page("/inbound", inbound.show_inbound),
        page("/inbound/{receipt_id}", inbound.show_receipt),
        page("/inbound/{receipt_id}/file", inbound.download),
        page("/keys", keys.show_keys),
        action("/keys", keys.make_key),
        page("/keys/{key_id}/revoke", keys.ask_to_revoke),
        action("/keys/{key_id}/revoke", keys.revoke_key),
        page("/organizations", organizations.show_organizations),
        action("/organizations", organizations.make_organization),
        page("/organizations/{organization_id}", organizations.show_organization),
        action("/organizations/{organization_id}", organizations.change_organization),
        page("/audit", audit.show_audit),
    ]


async def _first(visit: Visit) -> Response:
    return visit.redirect("/tasks")
