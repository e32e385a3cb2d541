"""What is done with one webhook by a form of its own: change, test, a new secret, sending again, removing."""

from datetime import timedelta
from typing import Any

from starlette.responses import Response

from receiver.api import replays, stats
from receiver.api import webhooks as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.documents import document
from receiver.dashboard.visit import Visit
from receiver.dashboard.webhook_fields import FormFault, changes, form_of, number
from receiver.dashboard.webhooks import PATH, need_write, saved, webhook_form

_DAY = 86_400
_SINCE_SEEN = "it was changed by someone else since this form was loaded: look at the values again"


async def show_change(visit: Visit) -> Response:
    """Show the form that changes a webhook."""
    need_write(visit)
    webhook = await _webhook(visit)
    return webhook_form(visit, form_of(webhook), webhook=webhook)


async def change(visit: Visit) -> Response:
    """Change what differs in the form. Another kind of signature has another secret, which this answer has alone."""
    need_write(visit)
    webhook = await _webhook(visit)
    try:
        if visit.form.get("seen") != webhook["updated_at"]:
            raise FormFault(_SINCE_SEEN)
        wanted = changes(visit.form, webhook)
        if not wanted:
            return visit.done("Nothing was different, so nothing was changed.", otherwise=f"{PATH}/{webhook['id']}")
        changed = await visit.ask(api.change_webhook, webhook_id=webhook["id"], body=wanted)
    except FormFault as fault:
        return webhook_form(visit, visit.form, fault, webhook)
    except ApiRefusal as refused:
        return webhook_form(visit, visit.form, FormFault.of(refused), webhook)
    return saved(visit, changed, "The webhook is changed.")


async def show_test(visit: Visit) -> Response:
    """Show the form that sends a test."""
    need_write(visit)
    return visit.page("webhook_test.html", webhook=await _webhook(visit), test=None, body=None)


async def test(visit: Visit) -> Response:
    """Send a ping, and show what the endpoint answered."""
    webhook = await _webhook(visit)
    found = await visit.ask(api.test_webhook, webhook_id=webhook["id"])
    return visit.page("webhook_test.html", webhook=webhook, test=found, body=document(found["request"]["body"]))


async def show_rotate(visit: Visit) -> Response:
    """Show the form that makes a new secret."""
    need_write(visit)
    return _rotate_page(visit, await _webhook(visit), {"overlap_seconds": str(_DAY)})


async def rotate(visit: Visit) -> Response:
    """Make a new secret, which this answer has alone, or take the one that is given."""
    need_write(visit)
    webhook = await _webhook(visit)
    try:
        body: dict[str, Any] = {"overlap_seconds": number(visit.form.get("overlap_seconds", ""), "overlap_seconds")}
        if visit.form.get("secret"):
            body["secret"] = visit.form["secret"]
        rotated = await visit.ask(api.rotate_secret, webhook_id=webhook["id"], body=body)
    except FormFault as fault:
        return _rotate_page(visit, webhook, visit.form, fault)
    except ApiRefusal as refused:
        return _rotate_page(visit, webhook, visit.form, FormFault.of(refused))
    return saved(visit, rotated, "The secret is another one now.")


async def show_remove(visit: Visit) -> Response:
    """Ask whether a webhook is to be removed, and tell what would be cancelled."""
    need_write(visit)
    webhook = await _webhook(visit)
    numbers = await visit.ask(stats.get_webhook_stats, webhook_id=webhook["id"])
    return visit.page("webhook_remove.html", webhook=webhook, pending=numbers["pending"])


async def remove(visit: Visit) -> Response:
    """Remove a webhook."""
    await visit.ask(api.delete_webhook, webhook_id=visit.path("webhook_id"))
    return visit.done("The webhook is removed, and what was pending for it is cancelled.", otherwise=PATH)


async def show_replay(visit: Visit) -> Response:
    """Show the forms that send again; the query fills them in."""
    need_write(visit)
    return _replay_page(visit, await _webhook(visit), dict(visit.query))


async def replay(visit: Visit) -> Response:
    """Send again what was given up, or all that matched."""
    need_write(visit)
    webhook, form = await _webhook(visit), visit.form
    is_recover = form.get("kind") == "recover"
    body: dict[str, Any] = {"since": form.get("since", "").strip()}
    if not is_recover:
        body |= {"until": form["until"].strip()} if form.get("until", "").strip() else {}
        chosen = [name for name in webhook["event_types"] if f"event:{name}" in form]
        body |= {"event_types": chosen} if len(chosen) < len(webhook["event_types"]) else {}
    handler = replays.recover if is_recover else replays.replay
    try:
        begun = await visit.ask(handler, webhook_id=webhook["id"], body=body)
    except ApiRefusal as refused:
        return _replay_page(visit, webhook, form, FormFault.of(refused))
    text = f"{begun['deliveries']:,} deliveries are sent again." if begun["deliveries"] != 1 else "One is sent again."
    return visit.done(text, otherwise=f"{PATH}/{webhook['id']}")


def _replay_page(visit: Visit, webhook: dict[str, Any], form: Any, fault: FormFault | None = None) -> Response:
    kind = "recover" if form.get("kind") == "recover" else "replay"
    chosen = [name for name in webhook["event_types"] if f"event:{name}" in form] or webhook["event_types"]
    return visit.page(
        "webhook_replay.html",
        status=400 if fault else 200,
        webhook=webhook,
        form=form,
        since=form.get("since") or f"{visit.now - timedelta(days=1):%Y-%m-%dT%H:%M}",
        kind=kind,
        chosen=chosen,
        fault=fault,
    )


def _rotate_page(visit: Visit, webhook: dict[str, Any], form: Any, fault: FormFault | None = None) -> Response:
    return visit.page("webhook_rotate.html", status=400 if fault else 200, webhook=webhook, form=form, fault=fault)


async def _webhook(visit: Visit) -> dict[str, Any]:
    found: dict[str, Any] = await visit.ask(api.get_webhook, webhook_id=visit.path("webhook_id"))
    return found
