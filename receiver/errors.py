"""Every error that Ringback raises on purpose. The API turns them into HTTP responses in one place.

The tree, with the HTTP status and the `code` of each response:

    RingbackError                                 500  internal_error
    ├── SettingsError                              -   at the start only: the process exits
    │   └── FaultyFile (providers.declared.faults) -   at the start only: the process exits
    ├── StartError                                 -   at the start only: the process exits
    │   └── DatabaseAway                           -   at the start only: it waits, then the process exits
    ├── BadRequest                                400  invalid_request_body
    │   ├── EventsLost                            400  event_id_unknown
    │   ├── UnknownAction (domain.actions)        400  invalid_request_body
    │   ├── InvalidGraph (domain.graph)           400  invalid_run_dag; invalid_request_body for some faults
    │   └── InvalidReference (domain.references)  400  invalid_reference
    ├── NotAuthenticated                          401  invalid_api_key
    ├── NotAllowed                                403  permission_denied
    ├── NotFound                                  404  not_found
    ├── Conflict                                  409  conflict
    │   └── LimitReached                          409  organization_limit_reached
    ├── TooLarge                                  413  body_too_large
    ├── EncodingUnknown (domain.content_encoding) 415  content_encoding_unknown
    ├── EncodingBroken (domain.content_encoding)  400  content_encoding_broken
    ├── RateLimited                               429  rate_limit_exceeded
    │   └── OrganizationRateLimited               429  organization_rate_limited
    ├── Unavailable                               503  unavailable
    │   ├── WriterFull                            503  writer_full
    │   ├── StorageUnavailable                    503  storage_unavailable
    │   └── OutcomeUnknown                        504  outcome_unknown
    ├── ProviderRefused                            *   provider_refused; the status is the provider's own.
    │                                                  provider_unauthorized (502) if it refused Ringback's own key
    ├── ClientGone (asgi)                          -   the client disconnected: no response can be sent
    ├── MasterKeyMissing (domain.keyring)         500  master_key_missing
    └── UnresolvedReference (domain.references)    -   reference_leads_nowhere; becomes the error of a run's step

A raise may replace the `code` by a more precise one, such as `run_not_found` or `invalid_query_params`. The command
line prints `message` as one line and exits with a status other than 0.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class RingbackError(Exception):
    """The base class. Catch it where every error of Ringback's own has to be handled in the same way.

    `message` is for a person: what is wrong, then what to do; it never holds a secret. `code` is for a program.
    `status` is the HTTP status. `kind` is the `type` of the error object in a response. `param` names the field that
    is wrong. `issues` lists every fault where there may be several. `retry_after`, in seconds, says when the same
    request may succeed.
    """

    status = 500
    code = "internal_error"
    kind = "api_error"
    retry_after: int | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        issues: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.issues = issues
        if code is not None:
            self.code = code


class SettingsError(RingbackError):
    """Raised at the start when a setting or a file that a setting names is wrong.

    `message` lists every fault, one a line. The caller prints it and exits.
    """


class StartError(RingbackError):
    """Raised at the start when the settings are right but the service cannot run, for example for an old schema.

    `message` says what is wrong and what to do. The caller prints it and exits.
    """


class DatabaseAway(StartError):
    """Raised at the start when the database cannot be used at present: it may be there soon, so a start waits."""


class BadRequest(RingbackError):
    """Raised when a request is wrong in itself. The client has to change it; `param` names the field."""

    status = 400
    code = "invalid_request_body"
    kind = "invalid_request_error"


class EventsLost(BadRequest):
    """Raised when a stream cannot be resumed at the position that was given: it is unknown, or its events are purged.

    The client has to start again, at `oldest` (the sequence number of its oldest event that still exists; None if
    there is none) or with new events only, and to read the tasks that it missed.
    """

    code = "event_id_unknown"

    def __init__(self, message: str, *, oldest: int | None) -> None:
        start = "no event is stored" if oldest is None else f"the oldest stored event is {oldest}"
        super().__init__(f"{message}; {start}", param="Last-Event-ID")
        self.oldest = oldest


class NotAuthenticated(RingbackError):
    """Raised when a request has no API key, or one that is unknown or revoked. The client has to send a valid key."""

    status = 401
    code = "invalid_api_key"
    kind = "authentication_error"


class NotAllowed(RingbackError):
    """Raised when the key is valid but lacks the required scope. The client has to use a key that has it."""

    status = 403
    code = "permission_denied"
    kind = "permission_error"


class NotFound(RingbackError):
    """Raised when the organization has no such resource. Trying again does not help.

    The code names the kind of resource, such as `task_not_found`; `not_found` alone is for a path.
    The response is the same for a resource of another organization, so that no one learns of its existence.
    """

    status = 404
    code = "not_found"
    kind = "invalid_request_error"


class Conflict(RingbackError):
    """Raised when the state of a resource does not allow the request.

    The client has to read the resource, then decide; `message` says if trying again later may help.
    """

    status = 409
    code = "conflict"
    kind = "invalid_request_error"


class LimitReached(Conflict):
    """Raised when an organization has as many of something as it may have; `param` names the limit.

    The client has to remove some, or the operator has to raise the limit: trying again alone does not help.
    """

    code = "organization_limit_reached"


class TooLarge(RingbackError):
    """Raised when a body is larger than its limit, which `message` names with its setting. Send a smaller one.

    Its limit may also be that of its values: `body_too_complex`.
    """

    status = 413
    code = "body_too_large"
    kind = "invalid_request_error"


class RateLimited(RingbackError):
    """Raised when an API key has used up its request rate. The client has to wait `retry_after` seconds."""

    status = 429
    code = "rate_limit_exceeded"
    kind = "rate_limit_error"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OrganizationRateLimited(RateLimited):
    """Raised when an organization does more at the moment than it may; `param` names the limit.

    Nothing was stored. The client has to wait `retry_after` seconds.
    """

    code = "organization_rate_limited"

    def __init__(self, message: str, *, param: str, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.param = param


class Unavailable(RingbackError):
    """Raised when the same request may succeed in `retry_after` seconds: send it again.

    Nothing was stored, unless it is an `OutcomeUnknown`. `reason` is for the log alone, and so are the exception's own
    words (`str`), which have it: the text of a driver or the system, which may name hosts, files and sessions.
    """

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after: int = 1, reason: str = "") -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after
        self.reason = reason

    def __str__(self) -> str:
        """Return the message with the reason."""
        return f"{self.message} ({self.reason})" if self.reason else self.message


class WriterFull(Unavailable):
    """Raised when as many writes wait as the writer's queue may hold (`RINGBACK_WRITER_QUEUE`). Send it again."""

    code = "writer_full"


class StorageUnavailable(Unavailable):
    """Raised when the database is locked, full or not reachable, and nothing of the write is on disk. Send it again."""

    code = "storage_unavailable"


class OutcomeUnknown(Unavailable):
    """Raised when a write may be on disk and may not be: the answer to its commit is missing.

    It is an `Unavailable`, so that code which repeats a write without harm needs no case of its own for it. Code that
    acts on a write, or reports that nothing was stored, catches it first. `later` is the write's result once the commit
    is known to be on disk, `StorageUnavailable` once it is known not to be, and `OutcomeUnknown` if that cannot be
    found out. It is None where the outcome is not asked for any more.
    """

    status = 504
    code = "outcome_unknown"

    def __init__(self, message: str = "", *, later: "asyncio.Future[Any] | None" = None) -> None:
        super().__init__(message or _OUTCOME_UNKNOWN)
        self.later = later

    @property
    def is_pending(self) -> bool:
        """Whether the outcome is still being asked for."""
        return self.later is not None and not self.later.done()

    def when_stored(self, call: Callable[[Any], None]) -> None:
        """Call `call` with the write's result as soon as it is known to be on disk; never if it is not."""
        if self.later is not None:
            self.later.add_done_callback(lambda later: call(later.result()) if _has_result(later) else None)


_OUTCOME_UNKNOWN = (
    "the database did not confirm the write, so it may have been stored: repeat the same request with the same "
    "Idempotency-Key to learn it; without a key, look for what it makes (list tasks by metadata) before you repeat it"
)


def _has_result(later: "asyncio.Future[Any]") -> bool:
    return not later.cancelled() and later.exception() is None


class ProviderRefused(RingbackError):
    """Raised when the provider refused a request for good; `status` and `body` are the provider's own.

    The client has to change the request. With the code `provider_unauthorized` it cannot: the provider refused
    Ringback's own key, and its operator has to mend `RINGBACK_PIAPI_API_KEY`.
    """

    code = "provider_refused"
    kind = "invalid_request_error"

    def __init__(
        self, message: str, *, status: int, body: dict[str, Any] | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.body = body
        if status >= 500:
            self.kind = RingbackError.kind
