"""Hidden values of a webhook are sent to no origin but the one that they were given for.

The API never returns the value of a webhook's own header, nor a secret that was stored before. A client that may change
a webhook could still read them, if a change of its URL took them along to another origin (RFC 6454: scheme, host,
port). So such a change has to give them again, or remove them. A signature may go anywhere: it says nothing about
the secret.
"""

from collections.abc import Mapping
from typing import Any

from models import DeliveryFormat
from receiver.domain.redaction import REDACTED
from receiver.errors import BadRequest
from receiver.outbound.target_url import target_url


def check_given_again(row: Mapping[str, Any], present: Mapping[str, str] | None, given: Mapping[str, Any]) -> None:
    """Raise `BadRequest` (`headers_required`) if a new origin would get header values that the change does not give.

    `present` are the headers of the webhook `row`, None if they cannot be read; `given` are the fields that change.
    """
    if not row["headers"] or not _moves(row, given):
        return
    headers = given.get("headers", present) or {}
    names = [name for name, value in headers.items() if "headers" not in given or value == REDACTED]
    if present is None and "headers" not in given:
        names = ["headers"]
    if names:
        raise BadRequest(
            f"the URL leads to another origin, which must not get the present values of {', '.join(names)}: give the "
            "headers with their values in the same request, or remove them (`headers`: null)",
            code="headers_required",
            param="headers",
        )


def check_secret_given_again(row: Mapping[str, Any], given: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Raise `BadRequest` (`secret_required`) if a change lets the present secret itself be sent where it was not.

    The format `piapi` sends it as a header, the others only what it signs. `changed` are the columns that change.
    """
    is_sent = changed.get("format", row["format"]) == DeliveryFormat.PIAPI
    is_kept = "secret" not in changed and row["secret"] is not None
    if is_sent and is_kept and (row["format"] != DeliveryFormat.PIAPI or _moves(row, given)):
        raise BadRequest(
            "with the format piapi the secret itself is sent, which it was not to this origin before: give `secret` in "
            "the same request",
            code="secret_required",
            param="secret",
        )


def _moves(row: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    url = given.get("endpoint_url")
    return url is not None and _origin(url) != _origin(row["endpoint_url"])


def _origin(text: str) -> tuple[str, str, int | None]:
    url = target_url(text)
    return url.scheme.lower(), (url.raw_host or "").lower(), url.port
