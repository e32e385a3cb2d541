"""All paths of the dashboard."""

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.dashboard import (
    audit,
    bulk_actions,
    deliveries,
    delivery,
    docs,
    events,
    inbound,
    keys,
    live,
    new_run,
    organizations,
    overview,
    provider_accounts,
    run,
    runs,
    selected_tasks,
    sign_in,
    task,
    tasks,
    webhook,
    webhook_changes,
    webhooks,
)
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
        page("/overview", overview.show_overview),
        page("/events", events.show_events),
        public_page("/docs", docs.show_docs),
        public_page("/docs/api", docs.show_reference),
        public_page("/docs/{guide}", docs.show_guide),
        public_page("/llms.txt", docs.show_index),
        page("/tasks", tasks.show_tasks),
        page("/tasks/{task_id}", task.show_task),
        page("/tasks/{task_id}/file", task.download),
        action("/tasks/{task_id}/{act}", task.act),
        *_bulk_actions(),
        *_runs(),
        *_webhooks(),
        page("/deliveries", deliveries.show_deliveries),
        page("/deliveries/{delivery_id}", delivery.show_delivery),
        action("/deliveries/{delivery_id}/{act}", deliveries.act),
        *_inbound(),
        *_of_administrators(),
    ]


def _bulk_actions() -> list[BaseRoute]:
    one = f"{bulk_actions.PATH}/{{bulk_action_id}}"
    return [
        page(bulk_actions.PATH, bulk_actions.show_bulk_actions),
        page(bulk_actions.NEW, bulk_actions.show_question),
        action(bulk_actions.NEW, bulk_actions.begin),
        action(f"{bulk_actions.PATH}/selected", selected_tasks.act_on_selected),
        page(one, bulk_actions.show_bulk_action),
        action(f"{one}/cancel", bulk_actions.cancel),
    ]


def _runs() -> list[BaseRoute]:
    return [
        page("/runs", runs.show_runs),
        page("/runs/new", new_run.show_form),
        action("/runs/new", new_run.create),
        page("/runs/{run_id}", run.show_run),
        page("/runs/{run_id}/file", run.download),
        action("/runs/{run_id}/{act}", run.act),
    ]


def _webhooks() -> list[BaseRoute]:
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


def _inbound() -> list[BaseRoute]:
    return [
        page("/inbound", inbound.show_inbound),
        page("/inbound/{receipt_id}", inbound.show_receipt),
        page("/inbound/{receipt_id}/file", inbound.download),
    ]


def _of_administrators() -> list[BaseRoute]:
    return [
        page("/keys", keys.show_keys),
        action("/keys", keys.make_key),
        page("/keys/{key_id}/revoke", keys.ask_to_revoke),
        action("/keys/{key_id}/revoke", keys.revoke_key),
        page("/organizations", organizations.show_organizations),
        action("/organizations", organizations.make_organization),
        page("/organizations/{organization_id}", organizations.show_organization),
        action("/organizations/{organization_id}", organizations.change_organization),
        page("/audit", audit.show_audit),
        *_providers(),
    ]


def _providers() -> list[BaseRoute]:
    accounts = f"{provider_accounts.PATH}/{{provider}}/accounts"
    one = f"{accounts}/{{account}}"
    return [
        page(provider_accounts.PATH, provider_accounts.show_providers),
        action(accounts, provider_accounts.add_account),
        page(one, provider_accounts.show_account),
        action(f"{one}/rotate", provider_accounts.rotate),
        action(f"{one}/default", provider_accounts.make_default),
        action(f"{one}/check", provider_accounts.check),
        action(f"{one}/remove", provider_accounts.remove),
    ]


async def _first(visit: Visit) -> Response:
    return visit.redirect("/overview")
