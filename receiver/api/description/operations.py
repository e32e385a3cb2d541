"""One row for each operation: what `receiver.api.routes` does not say about it.

The method, the path, the scope and the query are those of the route, the text is the docstring of its handler. The ids
of the operations are names for generated clients, and never change.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from pydantic import BaseModel

from receiver.api.description.bulk_body import CreateTasksBody
from receiver.api.description.errors import PiapiError
from receiver.api.description.event_answers import (
    JobAnswer,
    ListedEventAnswer,
    RunEventAnswer,
    StreamFrame,
    TaskEventAnswer,
)
from receiver.api.description.explanation_answers import (
    DeliveryExplanationAnswer,
    RunExplanationAnswer,
    TaskExplanationAnswer,
)
from receiver.api.description.forms import Free, Other, PageOf, Plain
from receiver.api.description.health_answers import Alive, NotReady, ReadyAnswer, RefusedMetrics
from receiver.api.description.inbound_answers import InboundAnswer, ReceiptAnswer, ReceiptWithBodyAnswer
from receiver.api.description.operator_answers import (
    AuditEntryAnswer,
    CreatedKeyAnswer,
    CreatedOrganizationAnswer,
    DashboardLinkAnswer,
    DeletedKeyAnswer,
    KeyAnswer,
    MasterKeyRotationAnswer,
    MasterKeysAnswer,
    OrganizationAnswer,
    OrganizationWithUseAnswer,
    OwnOrganizationAnswer,
    ReportAnswer,
)
from receiver.api.description.piapi_answers import (
    PiapiActiveAnswer,
    PiapiCancelledAnswer,
    PiapiHistoryAnswer,
    PiapiNews,
    PiapiTaskAnswer,
)
from receiver.api.description.provider_answers import (
    AccountCheckAnswer,
    ProviderAccountAnswer,
    ProviderAnswer,
    RemovedAccountAnswer,
)
from receiver.api.description.replicate_answers import (
    PredictionAccountAnswer,
    PredictionAnswer,
    PredictionsAnswer,
    SigningSecretAnswer,
    VersionAnswer,
)
from receiver.api.description.statistics_answers import StatsAnswer, WebhookStatsAnswer
from receiver.api.description.task_answers import (
    BulkActionAnswer,
    CreatedRunAnswer,
    CreatedTasksAnswer,
    DetailedRunAnswer,
    DryRunAnswer,
    ListedRunAnswer,
    ListedTaskAnswer,
    RunAnswer,
    TaskAnswer,
    WaitAnswer,
)
from receiver.api.description.webhook_answers import (
    DeletedWebhookAnswer,
    DeliveryAnswer,
    DeliveryWithAttemptsAnswer,
    ListedWebhookAnswer,
    ReplayAnswer,
    SavedWebhookAnswer,
    TestAnswer,
    WebhookAnswer,
)
from receiver.api.organization_schemas import ChangeOrganization, CreateOrganization
from receiver.api.provider_account_schemas import ChangeAccount, CreateAccount
from receiver.api.replicate_schemas import CreatePrediction, CreateVersionPrediction
from receiver.api.run_schemas import CreateRun
from receiver.api.schemas import (
    AdoptTask,
    ChangeWebhook,
    CreateKey,
    CreateTask,
    CreateWebhook,
    RecoverRequest,
    ReplayRequest,
    RotateMasterKey,
    RotateSecret,
    TasksToChange,
    WaitForTasks,
)

TAGS: Mapping[str, str] = {
    "Tasks": "Create tasks, follow them, cancel them and do them again.",
    "PiAPI": "PiAPI's own paths, in its form: a PiAPI client needs only another base URL.",
    "Replicate": "Replicate's own paths, in its form, over the tasks of any provider.",
    "Runs": "Small graphs of tasks, in Pi's form.",
    "Events": "What happened, in pages or as a live stream.",
    "Webhooks": "Register URLs that are called at each event; test them, and send to them again.",
    "Deliveries": "What was sent to whom, with every attempt.",
    "Statistics": "Numbers of tasks, deliveries, webhooks and providers, from sums that are kept.",
    "Report": "Whether everything that was created was delivered.",
    "Passed on": "Requests that make no task: they are passed on to the provider, in OpenAI's form.",
    "Keys": "API keys, and the master keys that encrypt what is stored.",
    "Organizations": "Owners of tasks and keys, and their limits.",
    "Providers": "What providers can do, and the accounts at them.",
    "Audit": "Who changed what.",
    "Inbound": "What the provider reported. The paths at `/hooks` are the provider's, and not for clients.",
    "Operating": "For supervisors, monitoring, and programs that read this description.",
}


class Operation(Struct, frozen=True, kw_only=True):
    """What a route does not say.

    `answers` are the models of the `data` of each successful status; `body` is the schema that checks the request.
    `errors` are the codes beyond those that every operation like it has (`receiver.api.description.refusals`).
    `may_refuse`: the provider's refusal is passed on, with its status. `summary` stands for the handler's docstring.
    """

    id: str
    tag: str
    answers: Mapping[int, Any] = field(default_factory=dict)
    body: type[BaseModel] | Other | None = None
    body_is_optional: bool = False
    errors: tuple[str, ...] = ()
    may_refuse: bool = False
    summary: str = ""


def _of(tag: str, name: str, answer: Any, *errors: str, status: int = 200, **more: Any) -> Operation:
    return Operation(id=name, tag=tag, answers={status: answer}, errors=errors, **more)


def _all_that_match(name: str) -> Operation:
    return Operation(
        id=name,
        tag="Tasks",
        answers={200: DryRunAnswer, 202: BulkActionAnswer},
        errors=("run_not_found", "organization_limit_reached"),
        body=TasksToChange,
    )


_SCANNED = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
    "description": "With `scan_limit`: how far back events were looked at, if the page ended for that.",
}
_NO_CREATE = ("organization_limit_reached", "writer_full")
_SECRETS = ("master_key_missing",)
_JSON_OR_STREAM = ("application/json", "text/event-stream")

_PIAPI: Mapping[str, Operation] = {
    "POST /api/v1/task": _of(
        "PiAPI",
        "piapi_create_task",
        PiapiTaskAnswer,
        "invalid_endpoint_url",
        "unknown_account",
        *_NO_CREATE,
        body=CreateTask,
        may_refuse=True,
    ),
    "GET /api/v1/task/{task_id}": _of("PiAPI", "piapi_get_task", PiapiTaskAnswer),
    "DELETE /api/v1/task/{task_id}": _of("PiAPI", "piapi_delete_task", PiapiTaskAnswer, "conflict", may_refuse=True),
    "POST /api/v1/task/{task_id}/cancel": _of(
        "PiAPI", "piapi_cancel_task", PiapiTaskAnswer, "conflict", may_refuse=True
    ),
    "DELETE /api/v1/tasks": _of("PiAPI", "piapi_cancel_tasks", PiapiCancelledAnswer),
    "GET /account/active_tasks": _of("PiAPI", "piapi_active_tasks", dict[str, PiapiActiveAnswer]),
    "GET /account/info": _of(
        "PiAPI",
        "piapi_account_info",
        Other(("application/json",), "The provider's own answer, unchanged.", Free),
        may_refuse=True,
    ),
    "GET /api/open/tasks/histories": _of("PiAPI", "piapi_histories", PiapiHistoryAnswer),
}


def _prediction(name: str, body: type[BaseModel]) -> Operation:
    return Operation(
        id=name,
        tag="Replicate",
        answers={201: Plain(PredictionAnswer), 202: Plain(PredictionAnswer)},
        body=body,
        errors=("invalid_endpoint_url", *_NO_CREATE),
        may_refuse=True,
    )


_REPLICATE: Mapping[str, Operation] = {
    "POST /v1/predictions": _prediction("create_prediction", CreateVersionPrediction),
    "POST /v1/models/{owner}/{name}/predictions": _prediction("create_model_prediction", CreatePrediction),
    "POST /v1/deployments/{owner}/{name}/predictions": _prediction("create_deployment_prediction", CreatePrediction),
    "GET /v1/predictions": _of("Replicate", "list_predictions", Plain(PredictionsAnswer)),
    "GET /v1/predictions/{task_id}": _of("Replicate", "get_prediction", Plain(PredictionAnswer)),
    "POST /v1/predictions/{task_id}/cancel": _of(
        "Replicate", "cancel_prediction", Plain(PredictionAnswer), "conflict", may_refuse=True
    ),
    "GET /v1/webhooks/default/secret": _of("Replicate", "get_signing_secret", Plain(SigningSecretAnswer)),
    "GET /v1/account": _of("Replicate", "get_account", Plain(PredictionAccountAnswer)),
    "GET /v1/models/{owner}/{name}/versions/{version_id}": _of("Replicate", "get_version", Plain(VersionAnswer)),
}

_TASKS: Mapping[str, Operation] = {
    "GET /api/v1/tasks": _of("Tasks", "list_tasks", PageOf(ListedTaskAnswer)),
    "POST /api/v1/tasks": _of(
        "Tasks", "create_tasks", CreatedTasksAnswer, *_NO_CREATE, status=202, body=CreateTasksBody
    ),
    "POST /api/v1/tasks/adopt": _of(
        "Tasks", "adopt_task", TaskAnswer, "task_not_found", "unknown_account", *_NO_CREATE, body=AdoptTask
    ),
    "GET /api/v1/tasks/{task_id}": _of("Tasks", "get_task", TaskAnswer),
    "GET /api/v1/tasks/{task_id}/events": _of("Tasks", "list_task_events", PageOf(TaskEventAnswer)),
    "GET /api/v1/tasks/{task_id}/explain": _of("Tasks", "explain_task", TaskExplanationAnswer),
    "POST /api/v1/tasks/wait": _of(
        "Tasks", "wait_for_tasks", WaitAnswer, "task_not_found", "organization_rate_limited", body=WaitForTasks
    ),
    "POST /api/v1/tasks/cancel": _all_that_match("cancel_matching_tasks"),
    "POST /api/v1/tasks/retry": _all_that_match("retry_matching_tasks"),
    "POST /api/v1/tasks/refresh": _all_that_match("refresh_matching_tasks"),
    "GET /api/v1/bulk-actions": _of("Tasks", "list_bulk_actions", PageOf(BulkActionAnswer)),
    "GET /api/v1/bulk-actions/{bulk_action_id}": _of("Tasks", "get_bulk_action", BulkActionAnswer),
    "POST /api/v1/bulk-actions/{bulk_action_id}/cancel": _of(
        "Tasks", "cancel_bulk_action", BulkActionAnswer, "conflict"
    ),
    "POST /api/v1/tasks/{task_id}/refresh": _of("Tasks", "refresh_task", TaskAnswer, may_refuse=True),
    "POST /api/v1/tasks/{task_id}/cancel": _of("Tasks", "cancel_task", TaskAnswer, "conflict", may_refuse=True),
    "POST /api/v1/tasks/{task_id}/retry": _of("Tasks", "retry_task", TaskAnswer, "conflict"),
    "GET /api/v1/events": Operation(
        id="list_events",
        tag="Events",
        answers={200: PageOf(ListedEventAnswer, {"scanned_until": _SCANNED})},
        errors=("event_id_unknown", "organization_rate_limited"),
    ),
}

_WEBHOOKS: Mapping[str, Operation] = {
    "POST /api/v1/webhooks": _of(
        "Webhooks",
        "create_webhook",
        SavedWebhookAnswer,
        "invalid_endpoint_url",
        "organization_limit_reached",
        "webhook_not_found",  # a repetition, when it has been removed since
        *_SECRETS,
        body=CreateWebhook,
    ),
    "GET /api/v1/webhooks": _of("Webhooks", "list_webhooks", PageOf(ListedWebhookAnswer)),
    "GET /api/v1/webhooks/{webhook_id}": _of("Webhooks", "get_webhook", WebhookAnswer),
    "PATCH /api/v1/webhooks/{webhook_id}": _of(
        "Webhooks",
        "change_webhook",
        SavedWebhookAnswer,
        *("invalid_endpoint_url", "headers_required", "secret_required", "no_changes", "conflict"),
        *_SECRETS,
        body=ChangeWebhook,
    ),
    "DELETE /api/v1/webhooks/{webhook_id}": _of("Webhooks", "delete_webhook", DeletedWebhookAnswer),
    "POST /api/v1/webhooks/{webhook_id}/rotate-secret": _of(
        "Webhooks",
        "rotate_webhook_secret",
        SavedWebhookAnswer,
        *_SECRETS,
        body=RotateSecret,
        body_is_optional=True,
    ),
    "POST /api/v1/webhooks/{webhook_id}/test": _of("Webhooks", "test_webhook", TestAnswer, *_SECRETS),
    "POST /api/v1/webhooks/{webhook_id}/recover": _of(
        "Webhooks",
        "recover_deliveries",
        ReplayAnswer,
        "organization_limit_reached",
        status=202,
        body=RecoverRequest,
    ),
    "POST /api/v1/webhooks/{webhook_id}/replay": _of(
        "Webhooks",
        "replay_events",
        ReplayAnswer,
        "organization_limit_reached",
        status=202,
        body=ReplayRequest,
    ),
    "GET /api/v1/webhooks/{webhook_id}/stats": _of("Statistics", "get_webhook_stats", WebhookStatsAnswer),
    "GET /api/v1/webhooks/{webhook_id}/replays": _of("Webhooks", "list_replays", PageOf(ReplayAnswer)),
    "GET /api/v1/webhooks/{webhook_id}/replays/{replay_id}": _of("Webhooks", "get_replay", ReplayAnswer),
    "DELETE /api/v1/webhooks/{webhook_id}/replays/{replay_id}": _of(
        "Webhooks", "delete_replay", ReplayAnswer, "conflict"
    ),
    "POST /api/v1/webhooks/{webhook_id}/replays/{replay_id}/cancel": _of(
        "Webhooks", "cancel_replay", ReplayAnswer, "conflict"
    ),
    "GET /api/v1/webhooks/{webhook_id}/deliveries": _of(
        "Deliveries", "list_webhook_deliveries", PageOf(DeliveryAnswer)
    ),
    "GET /api/v1/deliveries": _of("Deliveries", "list_deliveries", PageOf(DeliveryAnswer)),
    "GET /api/v1/deliveries/{delivery_id}": _of("Deliveries", "get_delivery", DeliveryWithAttemptsAnswer),
    "GET /api/v1/deliveries/{delivery_id}/explain": _of("Deliveries", "explain_delivery", DeliveryExplanationAnswer),
    "POST /api/v1/deliveries/{delivery_id}/retry": _of(
        "Deliveries", "retry_delivery", DeliveryAnswer, "conflict", status=202
    ),
}

_RUNS: Mapping[str, Operation] = {
    "POST /api/v1/runs": _of(
        "Runs",
        "create_run",
        CreatedRunAnswer,
        "invalid_run_dag",
        "unknown_account",
        *_NO_CREATE,
        status=202,
        body=CreateRun,
    ),
    "GET /api/v1/runs": _of("Runs", "list_runs", PageOf(ListedRunAnswer)),
    "GET /api/v1/runs/{run_id}": _of("Runs", "get_run", DetailedRunAnswer),
    "GET /api/v1/runs/{run_id}/events": _of("Runs", "list_run_events", PageOf(RunEventAnswer)),
    "GET /api/v1/runs/{run_id}/explain": _of("Runs", "explain_run", RunExplanationAnswer),
    "POST /api/v1/runs/{run_id}/cancel": _of("Runs", "cancel_run", RunAnswer, "conflict"),
    "POST /api/v1/runs/{run_id}/retry": _of("Runs", "retry_run", RunAnswer, "conflict"),
    "GET /api/v1/jobs/{job_id}": _of("Runs", "get_job", JobAnswer, "invalid_expand_param"),
}

_OPERATORS: Mapping[str, Operation] = {
    "GET /api/v1/report": _of("Report", "get_report", ReportAnswer, "report_too_large"),
    "GET /api/v1/stats": _of("Statistics", "get_stats", StatsAnswer),
    "POST /api/v1/dashboard-links": _of("Keys", "create_dashboard_link", DashboardLinkAnswer, "dashboard_off"),
    "POST /api/v1/keys": _of("Keys", "create_key", CreatedKeyAnswer, "conflict", body=CreateKey),
    "GET /api/v1/keys": _of("Keys", "list_keys", PageOf(KeyAnswer)),
    "GET /api/v1/keys/{key_id}": _of("Keys", "get_key", KeyAnswer),
    "DELETE /api/v1/keys/{key_id}": _of("Keys", "revoke_key", DeletedKeyAnswer),
    "GET /api/v1/master-keys": _of("Keys", "get_master_keys", MasterKeysAnswer),
    "POST /api/v1/master-keys/rotate": _of(
        "Keys", "rotate_master_key", MasterKeyRotationAnswer, body=RotateMasterKey, body_is_optional=True
    ),
    "GET /api/v1/audit": _of("Audit", "list_audit_entries", PageOf(AuditEntryAnswer)),
    "GET /api/v1/organization": _of("Organizations", "get_own_organization", OwnOrganizationAnswer),
    "POST /api/v1/organizations": _of(
        "Organizations", "create_organization", CreatedOrganizationAnswer, "conflict", body=CreateOrganization
    ),
    "GET /api/v1/organizations": _of("Organizations", "list_organizations", PageOf(OrganizationAnswer)),
    "GET /api/v1/organizations/{organization_id}": _of("Organizations", "get_organization", OrganizationWithUseAnswer),
    "PATCH /api/v1/organizations/{organization_id}": _of(
        "Organizations", "change_organization", OrganizationWithUseAnswer, "no_changes", body=ChangeOrganization
    ),
}

_ACCOUNTS = "/api/v1/providers/{provider}/accounts"
_PROVIDERS: Mapping[str, Operation] = {
    "GET /api/v1/providers": _of("Providers", "list_providers", PageOf(ProviderAnswer)),
    f"GET {_ACCOUNTS}": _of("Providers", "list_provider_accounts", PageOf(ProviderAccountAnswer)),
    f"POST {_ACCOUNTS}": _of(
        "Providers",
        "create_provider_account",
        ProviderAccountAnswer,
        "conflict",
        "organization_not_found",
        body=CreateAccount,
    ),
    f"GET {_ACCOUNTS}/{{account}}": _of("Providers", "get_provider_account", ProviderAccountAnswer),
    f"PATCH {_ACCOUNTS}/{{account}}": _of(
        "Providers",
        "change_provider_account",
        ProviderAccountAnswer,
        "no_changes",
        "master_key_missing",
        body=ChangeAccount,
    ),
    f"DELETE {_ACCOUNTS}/{{account}}": _of("Providers", "delete_provider_account", RemovedAccountAnswer),
    f"POST {_ACCOUNTS}/{{account}}/check": _of("Providers", "check_provider_account", AccountCheckAnswer),
}

_ANY_JSON = Other(("application/json",), "What the provider takes.", Free)
_A_FORM = Other(("multipart/form-data",), "What the provider takes.", Free)


def _passed_on(name: str, summary: str, *media_types: str, body: Other | None = None) -> Operation:
    answer = Other((*media_types, "*/*"), "The provider's own answer, as it comes.")
    return Operation(
        id=name,
        tag="Passed on",
        answers={200: answer},
        body=body,
        errors=("provider_unavailable", "provider_timeout"),
        may_refuse=True,
        summary=summary,
    )


_FORWARDED: Mapping[str, Operation] = {
    "POST /v1/chat/completions": _passed_on(
        "create_chat_completion", "Have a language model answer", *_JSON_OR_STREAM, body=_ANY_JSON
    ),
    "POST /v1/images/generations": _passed_on("create_image", "Have a picture made", *_JSON_OR_STREAM, body=_ANY_JSON),
    "POST /v1/images/edits": _passed_on("edit_image", "Have a picture changed", *_JSON_OR_STREAM, body=_A_FORM),
    "POST /v1/audio/speech": _passed_on("create_speech", "Have a text read", "audio/*", body=_ANY_JSON),
    "POST /v1/audio/transcriptions": _passed_on(
        "create_transcription", "Have a recording written down", "application/json", "text/plain", body=_A_FORM
    ),
    "GET /v1/models": _passed_on("list_models", "List the provider's models", "application/json"),
    "POST /api/ephemeral_resource": _passed_on(
        "upload_resource", "Upload a file to the provider for a while", "application/json", body=_ANY_JSON
    ),
}


def _inbound(name: str, summary: str, *, body: Any = PiapiNews) -> Operation:
    refusals = dict.fromkeys((400, 401, 404, 413, 415, 500, 503, 504), Plain(PiapiError))
    return Operation(id=name, tag="Inbound", answers={200: None, **refusals}, body=body, summary=summary)


_INBOUND: Mapping[str, Operation] = {
    "GET /api/v1/receipts": _of("Inbound", "list_receipts", PageOf(ReceiptAnswer)),
    "GET /api/v1/receipts/{receipt_id}": _of("Inbound", "get_receipt", ReceiptWithBodyAnswer),
    "GET /api/v1/inbound": _of("Inbound", "get_inbound", InboundAnswer),
}

_WITHOUT_KEY: Mapping[str, Operation] = {
    "POST /hooks/{provider}/{task_id}": _inbound(
        "receive_task_webhook", "Receive the provider's report on a task, which has a secret of its own"
    ),
    "POST /hooks/{provider}/{task_id}/{token}": _inbound(
        "receive_signed_webhook",
        "Receive a provider's report on a task, whose secret is the last part of the path",
        body=_ANY_JSON,
    ),
    "POST /hooks/{provider}/accounts/{account_id}": _inbound(
        "receive_account_webhook", "Receive a provider's report on a task of an account", body=_ANY_JSON
    ),
    "POST /hooks/{provider}": _inbound(
        "receive_webhook", "Receive the provider's report on a task that was created elsewhere"
    ),
    "GET /livez": Operation(id="livez", tag="Operating", answers={200: Plain(Alive)}),
    "GET /readyz": Operation(id="readyz", tag="Operating", answers={200: Plain(ReadyAnswer), 503: Plain(NotReady)}),
    "GET /metrics": Operation(
        id="metrics",
        tag="Operating",
        answers={200: Other(("text/plain",), "Prometheus' text form."), 401: Plain(RefusedMetrics)},
    ),
    "GET /openapi.json": Operation(
        id="openapi",
        tag="Operating",
        answers={
            200: Other(("application/json",), "This document.", Free),
            304: Other((), "It is the one that `If-None-Match` names."),
        },
    ),
}

OPERATIONS: Mapping[str, Operation] = {
    **_TASKS,
    **_RUNS,
    **_WEBHOOKS,
    **_PIAPI,
    **_REPLICATE,
    **_OPERATORS,
    **_PROVIDERS,
    **_FORWARDED,
    **_INBOUND,
    **_WITHOUT_KEY,
}
"""Every operation, by its method and path."""

__all__ = ["OPERATIONS", "TAGS", "Operation", "StreamFrame"]
