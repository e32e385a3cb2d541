"""The page of one webhook: how it does, its numbers, what was sent to it, and switching it on and off."""

import shlex
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from receiver.api import deliveries, replays, stats
from receiver.api import webhooks as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.deliveries import read_deliveries, send_again_url
from receiver.dashboard.list_query import ListQuery, canonical
from receiver.dashboard.visit import Visit
from receiver.dashboard.webhook_fields import events_text
from receiver.dashboard.webhook_numbers import DEFAULT_RANGE, RANGES, percent, pictures_of
from receiver.dashboard.webhooks import PATH

_MOST_REPLAYS = 3
"""On the page of a webhook: of each its deliveries are counted."""
_OWN = frozenset({"range", "webhook_id"})
"""What the query of the page has besides the filters of deliveries, and the one of these that its path has."""
_SWITCHES = {
    "disable": (False, "The webhook is off: what is for it waits."),
    "enable": (True, "The webhook is on: what waited for it is sent."),
}


async def show_webhook(visit: Visit) -> Response:
    """Show a webhook."""
    webhook = await visit.ask(api.get_webhook, webhook_id=visit.path("webhook_id"))
    uid, pairs = str(webhook["id"]), canonical(visit.query)
    if pairs != visit.query:
        return visit.redirect(f"{PATH}/{uid}", pairs)
    query = ListQuery(f"{PATH}/{uid}", pairs, visit.url)
    chosen = query.get("range") if query.get("range") in RANGES else DEFAULT_RANGE
    since = visit.now - RANGES[chosen]
    numbers = await visit.ask(stats.get_webhook_stats, webhook_id=uid, query={"since": since.isoformat()})
    newest = await visit.ask(replays.list_replays, webhook_id=uid, query={"limit": _MOST_REPLAYS})
    shown = await read_deliveries(visit, query, deliveries.list_webhook_deliveries, _OWN, 20, webhook_id=uid)
    return visit.page(
        "webhook.html",
        status=shown["fault"].status if shown["fault"] else 200,
        webhook=webhook,
        events=events_text(webhook["event_types"]),
        filters_text=orjson.dumps(webhook["filters"]).decode() if webhook["filters"] else "",
        stats=numbers,
        rate=percent(numbers["deliveries"]["success_rate"]),
        pictures=pictures_of(numbers),
        ranges=list(RANGES),
        chosen_range=chosen,
        replays=newest["data"],
        has_more_replays=newest["has_more"],
        again=send_again_url(visit, query, uid, _OWN),
        curl=_curl(visit, uid),
        live=visit.url("/live", {"event_types": "task.*,run.*,system.*"}),
        **shown,
    )


async def show_replays(visit: Visit) -> Response:
    """Show all replays of a webhook."""
    uid = visit.path("webhook_id")
    webhook = await visit.ask(api.get_webhook, webhook_id=uid)
    pairs = canonical(visit.query)
    found = await visit.ask(replays.list_replays, webhook_id=uid, query=[("limit", "10"), *pairs])
    return visit.page(
        "webhook_replays.html",
        webhook=webhook,
        query=ListQuery(f"{PATH}/{uid}/replays", pairs, visit.url),
        replays=found["data"],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
    )


async def switch(visit: Visit) -> Response:
    """Switch a webhook off or on."""
    uid, name = visit.path("webhook_id"), visit.path("act")
    if name not in _SWITCHES:
        raise HTTPException(404)
    is_active, text = _SWITCHES[name]
    try:
        await visit.ask(api.change_webhook, webhook_id=uid, body={"is_active": is_active})
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=f"{PATH}/{uid}")
    return visit.done(text, otherwise=f"{PATH}/{uid}")


async def cancel_replay(visit: Visit) -> Response:
    """Cancel a replay and what is left of its deliveries."""
    uid, replay = visit.path("webhook_id"), visit.path("replay_id")
    try:
        ended = await visit.ask(replays.cancel_replay, webhook_id=uid, replay_id=replay)
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=f"{PATH}/{uid}")
    return visit.done(f"The replay is {ended['status']}.", otherwise=f"{PATH}/{uid}")


def _curl(visit: Visit, uid: str) -> list[tuple[str, str]]:
    one = f"{str(visit.request.base_url).rstrip('/')}/api/v1/webhooks/{uid}"
    key = '-H "Authorization: Bearer $RINGBACK_API_KEY"'
    commands: list[tuple[str, str, Any]] = [
        ("Read this webhook", "", one),
        ("Send it a test", "-X POST ", f"{one}/test"),
        ("Read its deliveries that were given up", "", f"{one}/deliveries?status=dead"),
    ]
    return [(label, f"curl {method}{key} \\\n  {shlex.quote(url)}") for label, method, url in commands]
