"""Exceptions of the log, sent to Sentry or what speaks its protocol, if `RINGBACK_SENTRY_DSN` is set.

A report is what the log record has: its phrase, its ids as tags, the kind of the exception and where in the code it was
raised. It has no values of variables and no request, and of an exception's text only the first line: what libraries put
on further lines are statements, rows and values of fields. `SENTRY_RELEASE`, `SENTRY_ENVIRONMENT` and the other
variables of its own are read by Sentry's package.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from receiver.errors import SettingsError

if TYPE_CHECKING:
    from sentry_sdk.client import Client

_SETTING = "RINGBACK_SENTRY_DSN"
_LONGEST_TEXT = 500
_OWN_LOGGER = "sentry_sdk"

_client: "Client | None" = None


def check_error_reports(dsn: str) -> None:
    """Raise `SettingsError`, which does not repeat the DSN, if nothing can be sent to it."""
    try:
        from sentry_sdk.utils import BadDsn, Dsn
    except ImportError:
        raise SettingsError(f"{_SETTING}: needs Sentry's package; install it: pip install 'ringback[sentry]'") from None
    try:
        Dsn(dsn)
    except (BadDsn, ValueError):
        raise SettingsError(f"{_SETTING}: not a DSN; copy it from the project's settings, under Client Keys") from None


def begin_error_reports(dsn: str) -> None:
    """Report the exceptions of this process from now on. Raises `SettingsError`."""
    global _client
    check_error_reports(dsn)
    from sentry_sdk.client import Client

    from receiver.environment import sentry_release  # not sooner: the log is needed before settings are read

    _client = Client(
        dsn=dsn,
        # Without one, the package would run git and look for the names of other systems.
        release=sentry_release() or f"ringback@{version('ringback')}",
        # None of its integrations: they patch libraries, and read requests and headers.
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        auto_session_tracking=False,
        send_client_reports=False,
        before_send=_first_lines,
    )


def end_error_reports(seconds: float) -> None:
    """Report no more; send what waits, in `seconds` at most."""
    global _client
    ended, _client = _client, None
    if ended is not None:
        ended.close(timeout=seconds)


def report_exception(record: Mapping[str, Any]) -> None:
    """Send the exception of a log record (`exc_info`), which has the logger's name as `logger`. Does not wait."""
    client, info = _client, record.get("exc_info")
    if client is None or not info or str(record["logger"]).startswith(_OWN_LOGGER):
        return
    exc_info = sys.exc_info() if info is True else info
    if exc_info == (None, None, None):
        return
    with suppress(Exception):  # of the package's: what logs an error must not fail of it
        _send(client, exc_info, record)


def _send(client: "Client", exc_info: Any, record: Mapping[str, Any]) -> None:
    from sentry_sdk.utils import event_from_exception

    event, hint = event_from_exception(exc_info, client.options, {"type": "logging", "handled": True})
    event |= {
        "level": "error",
        "logger": str(record["logger"]),
        "logentry": {"message": str(record["event"])},
        "tags": {name: str(value) for name, value in record.items() if name.endswith("_id") and value is not None},
    }
    client.capture_event(event, hint)


def _first_lines(event: Any, _hint: Any) -> Any:
    for exception in (event.get("exception") or {}).get("values") or ():
        text = str(exception.get("value") or "")
        exception["value"] = (text.splitlines() or [""])[0][:_LONGEST_TEXT]
    return event
