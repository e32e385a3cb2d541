"""What becomes of a request that is not done: the error that its client is told, counted and logged."""

from starlette.types import Scope

from receiver.api.services import Services
from receiver.errors import LimitReached, OrganizationRateLimited, OutcomeUnknown, RingbackError, Unavailable
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, exceptions, organization_refusals

log = get_logger("api.request_errors")


def noted(error: Exception, services: Services, scope: Scope) -> RingbackError:
    """Count an error, and log it if it is not the client's or a record of refusals is due; return what to answer.

    Of `scope` the path, the client and the ids of the key are used.
    """
    if not isinstance(error, RingbackError):
        counted(exceptions, "request").inc()
        log.error("request failed", path=scope["path"], exc_info=error)
        return RingbackError("internal error: the log has the details under this request id")
    if isinstance(error, LimitReached | OrganizationRateLimited):
        counted(organization_refusals, str(error.param)).inc()
    services.refusals.note(error, scope)
    if isinstance(error, Unavailable) and error.reason:
        log.warning("request not served", path=scope["path"], error=str(error))
    return error


def broken_off(*, reads: bool) -> RingbackError:
    """Return the error for a request that is broken off because the service stops and waits no longer for it."""
    if reads:
        return Unavailable("the service stops: send the request again")
    return OutcomeUnknown(
        "the service stops before the request was done, so it may have been done in part: repeat the same request with "
        "the same Idempotency-Key; without a key, look for what it makes before you repeat it"
    )
