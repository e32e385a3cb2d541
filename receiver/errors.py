"""One error tree. The API turns these into HTTP in one place; the command line into one line and a status."""

from collections.abc import Mapping, Sequence
from typing import Any


class RingbackError(Exception):
    """The base of every error that Ringback raises on purpose.

    `message` is for a person and never holds a secret; `code` is for a program; `status` is the HTTP status; `issues`
    are all faults where there may be several; in `retry_after` seconds the same may well succeed.
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
    """The settings are wrong; `message` names every fault at once, one a line."""


class StartError(RingbackError):
    """The service cannot start; `message` says what is wrong and what to do."""


class BadRequest(RingbackError):
    """What the client sent is wrong; `param` names the field."""

    status = 400
    code = "invalid_request_body"
    kind = "invalid_request_error"


class EventsLost(BadRequest):
    """A stream cannot go on where its reader was; `oldest` is the oldest event's sequence number that is there."""

    code = "event_id_unknown"

    def __init__(self, message: str, *, oldest: int | None) -> None:
        there = "no event is there" if oldest is None else f"the oldest that is there is {oldest}"
        super().__init__(f"{message}; {there}", param="Last-Event-ID")
        self.oldest = oldest


class NotAuthenticated(RingbackError):
    """No key, or a key that is not one of ours."""

    status = 401
    code = "invalid_api_key"
    kind = "authentication_error"


class NotAllowed(RingbackError):
    """The key is good, but its scopes do not reach so far."""

    status = 403
    code = "permission_denied"
    kind = "permission_error"


class NotFound(RingbackError):
    """There is no such thing for this organization."""

    status = 404
    code = "not_found"
    kind = "invalid_request_error"


class Conflict(RingbackError):
    """The thing is not in a state that allows this."""

    status = 409
    code = "conflict"
    kind = "invalid_request_error"


class RateLimited(RingbackError):
    """The key has asked for more than it may; in `retry_after` seconds it may again."""

    status = 429
    code = "rate_limit_exceeded"
    kind = "rate_limit_error"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(RingbackError):
    """The body is larger than `RINGBACK_MAX_BODY_BYTES`."""

    status = 413
    code = "body_too_large"
    kind = "invalid_request_error"


class Unavailable(RingbackError):
    """Nothing was stored, and trying again in `retry_after` seconds may work."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class WriterFull(Unavailable):
    """More writes wait than the writer's queue may hold."""

    code = "writer_full"


class StorageUnavailable(Unavailable):
    """The database is locked, full or gone; nothing of the write is on disk."""

    code = "storage_unavailable"


class ProviderRefused(RingbackError):
    """The provider refused a request, for good: `status` and `body` are its own."""

    code = "provider_refused"
    kind = "invalid_request_error"

    def __init__(self, message: str, *, status: int, body: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
