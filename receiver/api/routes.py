"""All paths of the service."""

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from models import Scope
from receiver.api import (
    audit,
    bulk,
    bulk_actions,
    dashboard_links,
    deliveries,
    events,
    explanations,
    health,
    jobs,
    keys,
    master_keys,
    openapi,
    organizations,
    passthrough,
    piapi,
    provider_accounts,
    receipts,
    replays,
    replicate,
    report,
    runs,
    stats,
    tasks,
    webhooks,
)
from receiver.api.answer_headers import HEADERS
from receiver.api.dialects import NATIVE, PIAPI, REPLICATE, Dialect, dialect_of, nothing_at
from receiver.api.endpoint import EndpointHandler, endpoint
from receiver.api.piapi_queries import CancelQuery, HistoryQuery
from receiver.api.replicate_schemas import PredictionQuery
from receiver.api.request_times import observe
from receiver.api.run_schemas import GetRun, JobQuery, RunQuery
from receiver.api.schemas import (
    AuditQuery,
    DeliveryQuery,
    EventQuery,
    GetTask,
    Page,
    ReceiptQuery,
    ReportQuery,
    StatsQuery,
    TaskEventQuery,
    TaskQuery,
    WaitQuery,
    WebhookDeliveryQuery,
    WebhookQuery,
    WebhookStatsQuery,
)
from receiver.errors import RingbackError
from receiver.telemetry.metrics import counted, exceptions
from receiver.telemetry.request_ids import ensure_request_id

_CODES = {404: "not_found", 405: "method_not_allowed"}


HOOK, HOOK_WITH_TOKEN = "/hooks/{provider}/{task_id}", "/hooks/{provider}/{task_id}/{token}"
"""The routes of the requests that come most often."""


class Inbound:
    """Hands a provider's webhook to the inbound endpoint, which exists while the service runs."""

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Receive one webhook."""
        await scope["app"].state.inbound(scope, receive, send)


def routes(*, with_metrics: bool = True) -> list[BaseRoute]:
    """Return the routes, the busiest first, for they are tried in order; `with_metrics`: also `/metrics`."""
    inbound = Inbound()
    return [
        Route(HOOK, inbound),
        Route("/hooks/{provider}/accounts/{account_id}", inbound),
        Route(HOOK_WITH_TOKEN, inbound),
        Route("/hooks/{provider}", inbound),
        *_piapi(),
        *_runs(),
        *_native(),
        *_replicate(),
        *_forwarded(),
        Route("/openapi.json", openapi.get_description),
        Route("/livez", health.livez),
        Route("/readyz", health.readyz),
        *([Route("/metrics", health.metrics)] if with_metrics else []),
    ]


async def refuse_path(request: Request, error: Exception) -> Response:
    """Return the error for an unknown path or method, in the dialect of the path; 405 names the methods in `Allow`.

    Asynchronous, as the next one is, for Starlette would have a thread call it otherwise.
    """
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    allowed = _allowed(request) if status == 405 else ""
    message = f"{path} does not accept {request.method}; it accepts {allowed}" if allowed else nothing_at(path)
    refusal = RingbackError(message, code=_CODES.get(status))
    refusal.status = status
    refusal.kind = "invalid_request_error"
    response = dialect_of(path).error(refusal, ensure_request_id())
    if allowed:
        response.headers["allow"] = allowed
    return response


async def report_bug(request: Request, _error: Exception) -> Response:
    """Return the error for an exception that nothing caught; the server logs it with its traceback.

    It passes no middleware, so it gets the headers of every answer here.
    """
    counted(exceptions, "request").inc()
    observe(request.scope, 500)
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    response = dialect_of(path).error(RingbackError("internal error: the log has the details"), ensure_request_id())
    response.raw_headers.extend(HEADERS)
    return response


def _allowed(request: Request) -> str:
    """Return the methods that the request's path accepts: several routes may have the same path."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.methods and route.matches(request.scope)[0] is not Match.NONE:
            methods |= set(route.methods)
    return ", ".join(sorted(methods))


def _piapi() -> list[Route]:
    return [
        _route("POST", "/api/v1/task", piapi.create_task, PIAPI, Scope.WRITE, traced_as="create task"),
        _route("GET", "/api/v1/task/{task_id}", piapi.get_task, PIAPI, Scope.READ, query=WaitQuery),
        _route("DELETE", "/api/v1/task/{task_id}", piapi.cancel_task, PIAPI, Scope.WRITE),
        _route("POST", "/api/v1/task/{task_id}/cancel", piapi.cancel_task, PIAPI, Scope.WRITE),
        _route("DELETE", "/api/v1/tasks", piapi.cancel_tasks, PIAPI, Scope.WRITE, query=CancelQuery),
        _route("GET", "/account/active_tasks", piapi.account_active, PIAPI, Scope.READ),
        _route("GET", "/account/info", piapi.account_info, PIAPI, Scope.READ),
        _route("GET", "/api/open/tasks/histories", piapi.histories, PIAPI, Scope.READ, query=HistoryQuery),
    ]


def _native() -> list[Route]:
    webhook = "/api/v1/webhooks/{webhook_id}"
    return [
        _route("GET", "/api/v1/tasks", tasks.list_tasks, NATIVE, Scope.READ, query=TaskQuery),
        _route("POST", "/api/v1/tasks", bulk.create_tasks, NATIVE, Scope.WRITE, traced_as="create tasks"),
        _route("POST", "/api/v1/tasks/adopt", tasks.adopt_task, NATIVE, Scope.WRITE, traced_as="adopt task"),
        _route("POST", "/api/v1/tasks/wait", tasks.wait_for_tasks, NATIVE, Scope.READ, only_reads=True),
        *_bulk_actions(),
        _route("GET", "/api/v1/tasks/{task_id}", tasks.get_task, NATIVE, Scope.READ, query=GetTask),
        _route("GET", "/api/v1/tasks/{task_id}/events", tasks.list_events, NATIVE, Scope.READ, query=TaskEventQuery),
        _route("GET", "/api/v1/tasks/{task_id}/explain", explanations.explain_task, NATIVE, Scope.READ),
        _route("POST", "/api/v1/tasks/{task_id}/refresh", tasks.refresh_task, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/tasks/{task_id}/cancel", tasks.cancel_task, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/tasks/{task_id}/retry", tasks.retry_task, NATIVE, Scope.WRITE),
        _route("GET", "/api/v1/events", events.get_events, NATIVE, Scope.READ, query=EventQuery),
        _route("POST", "/api/v1/webhooks", webhooks.create_webhook, NATIVE, Scope.WRITE),
        _route("GET", "/api/v1/webhooks", webhooks.list_webhooks, NATIVE, Scope.READ, query=WebhookQuery),
        _route("GET", "/api/v1/webhooks/{webhook_id}", webhooks.get_webhook, NATIVE, Scope.READ),
        _route("PATCH", "/api/v1/webhooks/{webhook_id}", webhooks.change_webhook, NATIVE, Scope.WRITE),
        _route("DELETE", "/api/v1/webhooks/{webhook_id}", webhooks.delete_webhook, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/webhooks/{webhook_id}/rotate-secret", webhooks.rotate_secret, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/webhooks/{webhook_id}/test", webhooks.test_webhook, NATIVE, Scope.WRITE),
        _route("GET", f"{webhook}/stats", stats.get_webhook_stats, NATIVE, Scope.READ, query=WebhookStatsQuery),
        *_deliveries(),
        _route("GET", "/api/v1/receipts", receipts.list_receipts, NATIVE, Scope.READ, query=ReceiptQuery),
        _route("GET", "/api/v1/receipts/{receipt_id}", receipts.get_receipt, NATIVE, Scope.READ),
        _route("GET", "/api/v1/inbound", receipts.get_inbound, NATIVE, Scope.READ),
        _route("GET", "/api/v1/report", report.get_report, NATIVE, Scope.READ, query=ReportQuery),
        _route("GET", "/api/v1/stats", stats.get_stats, NATIVE, Scope.READ, query=StatsQuery),
        _route("POST", "/api/v1/keys", keys.create_key, NATIVE, Scope.ADMIN),
        _route("GET", "/api/v1/keys", keys.list_keys, NATIVE, Scope.ADMIN, query=Page),
        _route("GET", "/api/v1/keys/{key_id}", keys.get_key, NATIVE, Scope.ADMIN),
        _route("DELETE", "/api/v1/keys/{key_id}", keys.revoke_key, NATIVE, Scope.ADMIN),
        _route("GET", "/api/v1/master-keys", master_keys.get_master_keys, NATIVE, Scope.ADMIN),
        _route("POST", "/api/v1/master-keys/rotate", master_keys.rotate_master_key, NATIVE, Scope.ADMIN),
        _route("GET", "/api/v1/audit", audit.list_audit_entries, NATIVE, Scope.ADMIN, query=AuditQuery),
        *_organizations(),
        *_providers(),
        _route("POST", "/api/v1/dashboard-links", dashboard_links.create_link, NATIVE, Scope.READ),
    ]


def _bulk_actions() -> list[Route]:
    one = "/api/v1/bulk-actions/{bulk_action_id}"
    return [
        _route("POST", "/api/v1/tasks/cancel", bulk_actions.cancel_tasks, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/tasks/retry", bulk_actions.retry_tasks, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/tasks/refresh", bulk_actions.refresh_tasks, NATIVE, Scope.WRITE),
        _route("GET", "/api/v1/bulk-actions", bulk_actions.list_bulk_actions, NATIVE, Scope.READ, query=Page),
        _route("GET", one, bulk_actions.get_bulk_action, NATIVE, Scope.READ),
        _route("POST", f"{one}/cancel", bulk_actions.cancel_bulk_action, NATIVE, Scope.WRITE),
    ]


def _organizations() -> list[Route]:
    one = "/api/v1/organizations/{organization_id}"
    return [
        _route("GET", "/api/v1/organization", organizations.get_own_organization, NATIVE, Scope.READ),
        _route("POST", "/api/v1/organizations", organizations.create_organization, NATIVE, Scope.ADMIN),
        _route("GET", "/api/v1/organizations", organizations.list_organizations, NATIVE, Scope.ADMIN, query=Page),
        _route("GET", one, organizations.get_organization, NATIVE, Scope.ADMIN),
        _route("PATCH", one, organizations.change_organization, NATIVE, Scope.ADMIN),
    ]


def _providers() -> list[Route]:
    accounts = "/api/v1/providers/{provider}/accounts"
    one = f"{accounts}/{{account}}"
    return [
        _route("GET", "/api/v1/providers", provider_accounts.list_providers, NATIVE, Scope.READ),
        _route("GET", accounts, provider_accounts.list_accounts, NATIVE, Scope.READ, query=Page),
        _route("POST", accounts, provider_accounts.create_account, NATIVE, Scope.ADMIN),
        _route("GET", one, provider_accounts.get_account, NATIVE, Scope.READ),
        _route("PATCH", one, provider_accounts.change_account, NATIVE, Scope.ADMIN),
        _route("DELETE", one, provider_accounts.remove_account, NATIVE, Scope.ADMIN),
        _route("POST", f"{one}/check", provider_accounts.check_account, NATIVE, Scope.ADMIN),
    ]


def _runs() -> list[Route]:
    return [
        _route("POST", "/api/v1/runs", runs.create_run, NATIVE, Scope.WRITE, traced_as="create run"),
        _route("GET", "/api/v1/runs", runs.list_runs, NATIVE, Scope.READ, query=RunQuery),
        _route("GET", "/api/v1/runs/{run_id}", runs.get_run, NATIVE, Scope.READ, query=GetRun),
        _route("GET", "/api/v1/runs/{run_id}/events", runs.list_run_events, NATIVE, Scope.READ, query=TaskEventQuery),
        _route("GET", "/api/v1/runs/{run_id}/explain", explanations.explain_run, NATIVE, Scope.READ),
        _route("POST", "/api/v1/runs/{run_id}/cancel", runs.cancel_run, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/runs/{run_id}/retry", runs.retry_run, NATIVE, Scope.WRITE),
        _route("GET", "/api/v1/jobs/{job_id}", jobs.get_job, NATIVE, Scope.READ, query=JobQuery),
    ]


def _replicate() -> list[Route]:
    many, one, of = "/v1/predictions", "/v1/predictions/{task_id}", "{owner}/{name}/predictions"
    create, of_model, of_deployment = (
        replicate.create_prediction,
        replicate.create_model_prediction,
        replicate.create_deployment_prediction,
    )
    version = "/v1/models/{owner}/{name}/versions/{version_id}"
    return [
        _route("GET", one, replicate.get_prediction, REPLICATE, Scope.READ),
        _route("POST", many, create, REPLICATE, Scope.WRITE, traced_as="create task"),
        _route("POST", f"/v1/models/{of}", of_model, REPLICATE, Scope.WRITE, traced_as="create task"),
        _route("POST", f"/v1/deployments/{of}", of_deployment, REPLICATE, Scope.WRITE, traced_as="create task"),
        _route("GET", many, replicate.list_predictions, REPLICATE, Scope.READ, query=PredictionQuery),
        _route("POST", f"{one}/cancel", replicate.cancel_prediction, REPLICATE, Scope.WRITE),
        _route("GET", "/v1/webhooks/default/secret", replicate.get_secret, REPLICATE, Scope.WRITE),
        _route("GET", "/v1/account", replicate.get_account, REPLICATE, Scope.READ),
        _route("GET", version, replicate.get_version, REPLICATE, Scope.READ),
    ]


def _deliveries() -> list[Route]:
    replay = "/api/v1/webhooks/{webhook_id}/replays/{replay_id}"
    return [
        _route("GET", "/api/v1/deliveries", deliveries.list_deliveries, NATIVE, Scope.READ, query=DeliveryQuery),
        _route("GET", "/api/v1/deliveries/{delivery_id}", deliveries.get_delivery, NATIVE, Scope.READ),
        _route("GET", "/api/v1/deliveries/{delivery_id}/explain", explanations.explain_delivery, NATIVE, Scope.READ),
        _route("POST", "/api/v1/deliveries/{delivery_id}/retry", deliveries.retry_delivery, NATIVE, Scope.WRITE),
        _route(
            "GET",
            "/api/v1/webhooks/{webhook_id}/deliveries",
            deliveries.list_webhook_deliveries,
            NATIVE,
            Scope.READ,
            query=WebhookDeliveryQuery,
        ),
        _route("POST", "/api/v1/webhooks/{webhook_id}/recover", replays.recover, NATIVE, Scope.WRITE),
        _route("POST", "/api/v1/webhooks/{webhook_id}/replay", replays.replay, NATIVE, Scope.WRITE),
        _route("GET", "/api/v1/webhooks/{webhook_id}/replays", replays.list_replays, NATIVE, Scope.READ, query=Page),
        _route("GET", replay, replays.get_replay, NATIVE, Scope.READ),
        _route("DELETE", replay, replays.cancel_replay, NATIVE, Scope.WRITE),
        _route("POST", f"{replay}/cancel", replays.cancel_replay, NATIVE, Scope.WRITE),
    ]


def _forwarded() -> list[Route]:
    return [
        *(_passed_on("POST", path, NATIVE, Scope.WRITE) for path in passthrough.FORWARDED_POSTS),
        *(_passed_on("GET", path, NATIVE, Scope.READ) for path in passthrough.FORWARDED_GETS),
        _passed_on("POST", passthrough.UPLOAD_PATH, PIAPI, Scope.WRITE),
    ]


def _passed_on(method: str, path: str, dialect: Dialect, scope: Scope) -> Route:
    return Route(path, endpoint(passthrough.forwarding(path), dialect, scope, passes_on=True), methods=[method])


def _route(
    method: str,
    path: str,
    handler: EndpointHandler,
    dialect: Dialect,
    scope: Scope,
    *,
    query: type[BaseModel] | None = None,
    only_reads: bool = False,
    traced_as: str | None = None,
) -> Route:
    serve = endpoint(handler, dialect, scope, query=query, only_reads=only_reads, traced_as=traced_as)
    return Route(path, serve, methods=[method])
