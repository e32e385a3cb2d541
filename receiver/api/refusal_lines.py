"""Log records of requests that are refused for their key or a limit: of each kind one a minute."""

from starlette.types import Scope

from receiver.asgi import KEY
from receiver.clock import monotonic
from receiver.domain.client_networks import client_network
from receiver.domain.log_lines import LogLines
from receiver.errors import LimitReached, NotAllowed, NotAuthenticated, RateLimited, RingbackError
from receiver.telemetry.log import get_logger

log = get_logger("api.refusal_lines")

_LOGGED = (NotAuthenticated, NotAllowed, RateLimited, LimitReached)


class RefusalLines:
    """Logs refusals, and bounds how often: one a minute for each code and key, or address where the key is unknown."""

    def __init__(self) -> None:
        self._lines = LogLines()

    def note(self, error: RingbackError, scope: Scope) -> None:
        """Log an error that refuses a request, if it is of such a kind and a record of it is due.

        Wrong keys that are slowed have records of their own (`api.wrong_keys`).
        """
        key_id, organization = scope.get(KEY) or (None, None)
        if not isinstance(error, _LOGGED) or (isinstance(error, RateLimited) and key_id is None):
            return
        client = scope.get("client")
        network = client_network(client[0] if client else None)
        if number := self._lines.due(f"{error.code} {error.param} {key_id or network}", monotonic()):
            who = {"key_id": key_id, "organization": organization} if key_id is not None else {}
            limit = {"limit": error.param} if error.param is not None else {}
            log.warning(
                "requests refused",
                error_code=error.code,
                status=error.status,
                address=network,
                number=number,
                **who,
                **limit,
            )
