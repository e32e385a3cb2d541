"""The errors of the API: their forms, and every code with its HTTP statuses and what it means for a client.

The codes are those of `receiver.errors`, and of what raises them with a code of its own.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from receiver.api.description.forms import Answered, absent
from receiver.domain.graph import Fault


class CodeMeaning(Struct, frozen=True):
    """What a code means, and the HTTP statuses that come with it; none stands for the provider's own status."""

    meaning: str
    statuses: tuple[int, ...]


def _code(meaning: str, *statuses: int) -> CodeMeaning:
    return CodeMeaning(meaning, statuses)


CODES: Mapping[str, CodeMeaning] = {
    "invalid_request_body": _code("the body is not as its schema says; `message` names the fields", 400),
    "invalid_json_body": _code("the body is no JSON", 400),
    "invalid_query_params": _code("a query parameter is unknown, wrong or given twice", 400),
    "invalid_idempotency_key": _code("the `Idempotency-Key` is not 1 to 255 printable ASCII characters", 400),
    "content_encoding_broken": _code("the body is not in its `Content-Encoding`", 400),
    "invalid_run_dag": _code("the steps of a run are no graph that can be done; `issues` lists the faults", 400),
    "invalid_endpoint_url": _code("the callback URL is not one that may be called", 400),
    "invalid_expand_param": _code("`include` or `expand` names what is unknown", 400),
    "invalid_run_id": _code("the id in the path is not a UUID", 400),
    "invalid_job_id": _code("the id in the path is not a UUID", 400),
    "invalid_webhook_id": _code("the id in the path is not a UUID", 400),
    "invalid_replay_id": _code("the id in the path is not a UUID", 400),
    "invalid_delivery_id": _code("the id in the path is not a UUID", 400),
    "invalid_bulk_action_id": _code("the id in the path is not a UUID", 400),
    "invalid_receipt_id": _code("the id in the path is not a UUID", 400),
    "invalid_key_id": _code("the id in the path is not a UUID", 400),
    "invalid_organization_id": _code("the id in the path is not a UUID", 400),
    "unknown_account": _code("the provider has no account of this name that you may use", 400),
    "event_id_unknown": _code("there is no such event, or what follows it was purged: begin again", 400),
    "headers_required": _code("the values of the webhook's headers have to be given again for a new origin", 400),
    "secret_required": _code("the secret has to be given again, because it would be sent to another place", 400),
    "no_changes": _code("the request names nothing to change", 400),
    "report_too_large": _code("the range has too much to be read in time: ask for a shorter one", 400),
    "missing_authorization_header": _code("the request has no API key", 401),
    "invalid_authorization_scheme": _code("the `Authorization` is not `Bearer`", 401),
    "missing_bearer_token": _code("the Bearer token is empty", 401),
    "invalid_api_key": _code("the API key is unknown or was revoked", 401),
    "key_expired": _code("the API key has expired", 401),
    "weak_api_key": _code("the operator's API key could be guessed, and is not accepted any more", 401),
    "permission_denied": _code("the key's scope, or its organization, does not allow this", 403),
    "not_found": _code("there is nothing at this path", 404),
    "task_not_found": _code("there is no such task", 404),
    "run_not_found": _code("there is no such run", 404),
    "job_not_found": _code("there is no such job", 404),
    "event_not_found": _code("there is no such event", 404),
    "webhook_not_found": _code("there is no such webhook", 404),
    "delivery_not_found": _code("there is no such delivery", 404),
    "replay_not_found": _code("there is no such replay", 404),
    "bulk_action_not_found": _code("there is no such bulk action", 404),
    "receipt_not_found": _code("there is no such receipt", 404),
    "dashboard_off": _code("the dashboard is turned off", 404),
    "key_not_found": _code("there is no such key", 404),
    "provider_not_found": _code("there is no such provider", 404),
    "account_not_found": _code("there is no such account at the provider", 404),
    "organization_not_found": _code("there is no such organization", 404),
    "method_not_allowed": _code("the path does not accept the method; `Allow` names those that it accepts", 405),
    "conflict": _code("the state of the resource does not allow this", 409),
    "idempotency_key_mismatch": _code("the `Idempotency-Key` was used with another body", 409),
    "organization_limit_reached": _code("the organization has as many as it may have; `param` names the limit", 409),
    "body_too_large": _code("the body is larger than may be", 413),
    "body_too_complex": _code("the body has too many values", 413),
    "content_encoding_unknown": _code("the `Content-Encoding` is neither gzip nor deflate", 415),
    "rate_limit_exceeded": _code("too many requests, wrong keys, or changes: wait for `Retry-After`", 429),
    "organization_rate_limited": _code("the organization does more than it may; `param` names the limit", 429),
    "internal_error": _code("a fault of the service: its log has the details under `request_id`", 500),
    "master_key_missing": _code("the master key that encrypted what is needed is not set", 500),
    "provider_refused": _code("the provider refused the request for good, with this status"),
    "provider_unauthorized": _code("the provider does not accept Ringback's own key", 502),
    "provider_unavailable": _code("the provider did not answer", 502),
    "provider_timeout": _code("the provider did not answer in time", 504),
    "unavailable": _code("the same request may succeed after `Retry-After`; nothing was stored", 503),
    "writer_full": _code("too many writes wait; nothing was stored", 503),
    "storage_unavailable": _code("the database cannot be used at present; nothing was stored", 503),
    "idempotency_key_in_use": _code("another request with this `Idempotency-Key` is in progress", 503),
    "outcome_unknown": _code(
        "the request may have been done: repeat it with the same `Idempotency-Key` to learn that", 504
    ),
}
"""Every code of an error."""

AUTHENTICATION = (
    *("missing_authorization_header", "invalid_authorization_scheme", "missing_bearer_token", "invalid_api_key"),
    *("key_expired", "weak_api_key"),
)
EVERYWHERE = (
    *AUTHENTICATION,
    *("invalid_query_params", "permission_denied", "rate_limit_exceeded", "internal_error"),
    *("unavailable", "storage_unavailable"),
)
"""The codes that every operation with a key may answer."""
OF_POSTS = (
    *("invalid_idempotency_key", "idempotency_key_mismatch", "idempotency_key_in_use", "organization_rate_limited"),
    *("body_too_large", "content_encoding_broken", "content_encoding_unknown"),
)
"""Those of every POST: with an `Idempotency-Key` its body is read, also where it has none to read."""
OF_WRITES = ("writer_full", "outcome_unknown")
OF_BODIES = (
    *("invalid_request_body", "invalid_json_body", "body_too_large", "body_too_complex"),
    *("content_encoding_broken", "content_encoding_unknown"),
)


class GraphIssue(Answered):
    """One fault of the steps of a run."""

    code: Fault
    message: str
    step_id: str | None
    param: str


class BulkErrorDetail(Answered):
    """Why one of several was refused."""

    type: Literal["invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "api_error"]
    code: str
    """For programs."""
    message: str
    """For a person: what is wrong, then what to do."""
    param: str = absent()
    """The field that is wrong."""
    issues: list[GraphIssue] = absent()
    """Every fault, where there may be several."""


class ErrorDetail(BulkErrorDetail):
    """Why the request was refused."""

    request_id: str
    retry_after: int = absent()
    """Seconds after which the same request may succeed."""
    oldest_id: str | None = absent()
    """With `event_id_unknown`: the oldest event that still exists."""


class NativeError(Answered):
    """An error."""

    error: ErrorDetail


class PiapiError(Answered):
    """An error in PiAPI's form; `message` begins with the field that is wrong."""

    code: int
    """The HTTP status."""
    data: None
    message: str
