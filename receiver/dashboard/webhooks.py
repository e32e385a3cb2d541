"""The page of webhooks, the newest first, and adding one."""

from typing import Any

from starlette.responses import Response

from models import Scope
from receiver.api import webhooks as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.list_query import ListQuery, canonical
from receiver.dashboard.visit import Visit
from receiver.dashboard.webhook_fields import (
    EVENTS,
    FORMATS,
    SIGNATURES,
    Form,
    FormFault,
    events_text,
    fields_of,
    new_form,
)
from receiver.dashboard.webhook_numbers import percent

PATH = "/webhooks"
_FOLLOWED = "task.*,run.*,system.*"


async def show_webhooks(visit: Visit) -> Response:
    """Show a page of webhooks, each with its numbers of the last day."""
    pairs = canonical(visit.query)
    if pairs != visit.query:
        return visit.redirect(PATH, pairs)
    found = await visit.ask(api.list_webhooks, query=[*pairs, ("include", "stats")])
    return visit.page(
        "webhooks.html",
        query=ListQuery(PATH, pairs, visit.url),
        webhooks=[
            {**each, "success": percent(each["stats"]["success_rate"]), "events": events_text(each["event_types"])}
            for each in found["data"]
        ],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        live=visit.url("/live", {"event_types": _FOLLOWED}),
    )


async def show_new(visit: Visit) -> Response:
    """Show the form that adds one."""
    need_write(visit)
    return webhook_form(visit, new_form())


async def add(visit: Visit) -> Response:
    """Add a webhook. The answer has its secret, if Ringback made one: it is shown in this page alone."""
    need_write(visit)
    try:
        given = {name: value for name, value in fields_of(visit.form).items() if value is not None}
        webhook = await visit.ask(api.create_webhook, body=given)
    except FormFault as fault:
        return webhook_form(visit, visit.form, fault)
    except ApiRefusal as refused:
        return webhook_form(visit, visit.form, FormFault.of(refused))
    return saved(visit, webhook, "The webhook is added.")


def saved(visit: Visit, webhook: dict[str, Any], text: str) -> Response:
    """Show the secret that was made just now, which no later page has; if there is none, lead to the webhook."""
    if "secret" in webhook:
        return visit.page("webhook_secret.html", webhook=webhook, text=text)
    return visit.done(text, otherwise=f"{PATH}/{webhook['id']}")


def webhook_form(
    visit: Visit, form: Form, fault: FormFault | None = None, webhook: dict[str, Any] | None = None
) -> Response:
    """Show the form of a webhook, of a new one if there is none yet. A secret that was typed is not sent back."""
    return visit.page(
        "webhook_form.html",
        status=400 if fault else 200,
        form=form,
        fault=fault,
        webhook=webhook,
        events=EVENTS,
        formats=FORMATS,
        signatures=SIGNATURES,
    )


def need_write(visit: Visit) -> None:
    """Refuse who may only read, before a form is shown or looked at that would do nothing for them."""
    if not visit.can(Scope.WRITE):
        message = "this needs a key with the scope write"
        raise ApiRefusal(403, {"message": message, "code": "permission_denied", "request_id": None})
