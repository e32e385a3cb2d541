"""The page of deliveries, and the list of them that the page of a webhook has too: the newest first."""

from collections.abc import Collection
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from models import DeliveryStatus, Scope
from receiver.api import deliveries as api
from receiver.api import tasks, webhooks
from receiver.api.endpoint import EndpointHandler
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.list_query import ListQuery, canonical
from receiver.dashboard.visit import Visit

PATH = "/deliveries"
FILTERS = {
    "webhook_id": ("Webhook", "its id"),
    "event_id": ("Event", "its id"),
    "task_id": ("Task", "its id, or the provider's"),
    "created_after": ("Created after (UTC)", "2026-01-31T12:00"),
    "created_before": ("Created before (UTC)", "2026-02-01"),
    "limit": ("Deliveries a page", "50"),
}
"""What a person may filter by, besides the state: the title of the field, and what it may have."""
_OF_A_RANGE = {"created_after": "since", "created_before": "until"}
"""The filters by which all deliveries that match can be sent again, and what they are called there."""


async def show_deliveries(visit: Visit) -> Response:
    """Show a page of deliveries."""
    pairs = canonical(visit.query)
    if text := next((value for name, value in pairs if name == "search"), ""):
        return await _search(visit, text)
    if pairs != visit.query:
        return visit.redirect(PATH, pairs)
    query = ListQuery(PATH, pairs, visit.url)
    shown = await read_deliveries(visit, query, api.list_deliveries)
    followed = [pair for pair in pairs if pair[0] == "task_id"] if shown["fault"] is None else []
    return visit.page(
        "deliveries.html",
        status=shown["fault"].status if shown["fault"] else 200,
        again=send_again_url(visit, query, query.get("webhook_id")),
        live=visit.url("/live", followed),
        **shown,
    )


async def read_deliveries(
    visit: Visit, query: ListQuery, handler: EndpointHandler, own: Collection[str] = (), limit: int = 50, **path: str
) -> dict[str, Any]:
    """Return what `delivery_list.html` shows: a page of deliveries of an endpoint of the API.

    `own` are the names of the query that mean something to the page alone, `limit` is of a page whose query has none.
    A filter that the API refuses is `fault`.
    """
    asked = [pair for pair in query.pairs if pair[0] not in own]
    bounds = [] if query.get("limit") else [("limit", limit)]
    found, fault = await visit.ask_page(handler, [*asked, *bounds], **path)
    return {
        "query": query,
        "deliveries": found["data"],
        "next_cursor": found["next_cursor"] if found["has_more"] else None,
        "fault": fault,
        "statuses": list(DeliveryStatus),
        "filters": {name: field for name, field in FILTERS.items() if name not in own},
        "chips": [pair for pair in asked if pair[0] not in ("status", "cursor", "limit")],
    }


def send_again_url(visit: Visit, query: ListQuery, webhook_id: str, own: Collection[str] = ()) -> str | None:
    """Return where what a list shows can be sent again, all of it: that is done for one webhook, by time.

    None for a list with other filters, and for who may not write.
    """
    others = {name for name, _ in query.pairs} - {"webhook_id", "status", "limit", "cursor", *_OF_A_RANGE, *own}
    is_settled = query.get("status") in ("", DeliveryStatus.DEAD)
    if not webhook_id or others or not is_settled or not visit.can(Scope.WRITE):
        return None
    kind = "recover" if query.get("status") == DeliveryStatus.DEAD else "replay"
    times = [(new, query.get(name)) for name, new in _OF_A_RANGE.items() if query.get(name)]
    return visit.url(f"/webhooks/{webhook_id}/replay", [("kind", kind), *times])


async def act(visit: Visit) -> Response:
    """Send one delivery again."""
    uid = visit.path("delivery_id")
    if visit.path("act") != "retry":
        raise HTTPException(404)
    try:
        delivery = await visit.ask(api.retry_delivery, delivery_id=uid)
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=PATH)
    return visit.done(f"The delivery is {delivery['status']}: it is sent again now.", otherwise=f"{PATH}/{uid}")


async def _search(visit: Visit, text: str) -> Response:
    """Lead to what an id means: a delivery, or those of a task, of an event or of a webhook."""
    if await _is_found(visit, api.get_delivery, delivery_id=text):
        return visit.redirect(f"{PATH}/{text}")
    if await _is_found(visit, tasks.get_task, task_id=text):
        return visit.redirect(PATH, [("task_id", text)])
    is_webhook = await _is_found(visit, webhooks.get_webhook, webhook_id=text)
    return visit.redirect(PATH, [("webhook_id" if is_webhook else "event_id", text)])


async def _is_found(visit: Visit, handler: EndpointHandler, **path: str) -> bool:
    try:
        await visit.ask(handler, query=(), body=None, **path)
    except ApiRefusal as refused:
        if refused.status not in (400, 404):
            raise
        return False
    return True
