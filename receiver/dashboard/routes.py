"""All paths of the dashboard."""

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.dashboard import (
    deliveries,
    delivery,
    live,
    sign_in,
    task,
    tasks,
    webhook,
    webhook_changes,
    webhooks,
)
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
        *_webhooks(),
        page("/deliveries", deliveries.show_deliveries),
        page("/deliveries/{delivery_id}", delivery.show_delivery),
        action("/deliveries/{delivery_id}/{act}", deliveries.act),
    ]


def _webhooks() -> list[Route]:
    one = "/webhooks/{webhook_id}"
    forms = (
        ("/webhooks/new", webhooks.show_new, webhooks.add),
        (f"{one}/change", webhook_changes.show_change, webhook_changes.change),
        (f"{one}/test", webhook_changes.show_test, webhook_changes.test),
        (f"{one}/rotate", webhook_changes.show_rotate, webhook_changes.rotate),
        (f"{one}/replay", webhook_changes.show_replay, webhook_changes.replay),
        (f"{one}/remove", webhook_changes.show_remove, webhook_changes.remove),
    )
    return [
        page("/webhooks", webhooks.show_webhooks),
        *(route for path, show, act in forms for route in (page(path, show), action(path, act))),
        page(one, webhook.show_webhook),
        page(f"{one}/replays", webhook.show_replays),
        action(f"{one}/replays/{{replay_id}}/cancel", webhook.cancel_replay),
        action(f"{one}/{{act}}", webhook.switch),
    ]


async def _first(visit: Visit) -> Response:
    return visit.redirect("/tasks")
