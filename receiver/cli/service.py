"""The client of the service's HTTP API: its URL and key, requests, and what responses mean for the exit status."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from receiver.cli.failure import Failure, ServiceUnreachable, Status, note_answer
from receiver.cli.inputs import without_none
from receiver.settings import client_settings

OUTAGE_SECONDS = 60.0
"""How long a service that has answered before may be unreachable, or full: as a rule it is being restarted."""

TIMEOUT = httpx.Timeout(60.0, connect=10.0, pool=None)
"""Seconds. A create may wait 10 s for the provider, and longer when the service is busy."""
_PAGE_SIZE = 200
_SUCCESS_CODES = (0, 200)
"""The `code` of a success in PiAPI's envelope."""
_NOT_ALLOWED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})
_TEMPORARY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""Statuses from a proxy while the service restarts, and from the service while it is full."""


def connection() -> dict[str, Any]:
    """Return the keyword arguments for an httpx client of the service, from `RINGBACK_URL` and `RINGBACK_API_KEY`."""
    url, key = client_settings()
    parts = split_url(url, "RINGBACK_URL")
    if key is not None and (not (key.isascii() and key.isprintable()) or " " in key):
        raise Failure(Status.USAGE, "RINGBACK_API_KEY contains characters that no key has; copy it again")
    return {
        "base_url": url.rstrip("/"),
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": TIMEOUT,
        # Requests to loopback go there directly, even if the environment names a proxy.
        "trust_env": not is_loopback(parts.hostname or ""),
    }


@contextmanager
def service() -> Iterator["ServiceClient"]:
    """Open a client of the service for one command."""
    with httpx.Client(**connection()) as client:
        yield ServiceClient(client)


class ServiceClient:
    """Sends requests to the service. Everything that goes wrong is raised as a `Failure`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and return the `data` of the response."""
        with reaching(self._client.base_url), only_text():
            answer = self._client.request(method, path, params=params, json=body, headers=headers)
        return read_answer(answer)

    def collect(self, path: str, filters: Mapping[str, Any] | None = None, most: int | None = None) -> dict[str, Any]:
        """Return a list with at most `most` items (None: all), read page by page. Filters that are None do not count.

        The result has the form of one page: `data`, `has_more` and `next_cursor`.
        """
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            size = _PAGE_SIZE if most is None else min(_PAGE_SIZE, most - len(found))
            page = self.call("GET", path, params={**without_none(filters or {}), "limit": size, **cursor})
            found += page["data"]
            more = bool(page.get("has_more") and page.get("next_cursor"))
            if not more or len(found) == most:
                next_cursor = page["next_cursor"] if more else None
                return {"object": "list", "data": found, "has_more": more, "next_cursor": next_cursor}
            cursor = {"cursor": page["next_cursor"]}


@contextmanager
def reaching(url: httpx.URL) -> Iterator[None]:
    """Turn errors of the connection to the service into a `ServiceUnreachable` that says what to do."""
    base = str(url).rstrip("/")
    try:
        yield
    except httpx.ConnectError:
        raise ServiceUnreachable(
            f"cannot reach {base}; start the service with `ringback serve`, or set RINGBACK_URL"
        ) from None
    except httpx.TimeoutException:
        raise ServiceUnreachable(
            f"{base} did not respond in time; check that it is a Ringback service, or set RINGBACK_URL"
        ) from None
    except httpx.TransportError:
        raise ServiceUnreachable(
            f"the connection to {base} was lost before the response; the request may or may not have taken effect"
        ) from None


@contextmanager
def only_text() -> Iterator[None]:
    """Turn an argument of the command line that is not UTF-8, and so cannot be sent, into a usage error."""
    try:
        yield
    except UnicodeEncodeError:
        raise Failure(Status.USAGE, "an argument is not a text in UTF-8; write it in that encoding") from None


def answered(answer: httpx.Response) -> None:
    """Note which URL answered, for a message about what cannot be read."""
    note_answer(str(answer.url.copy_with(query=None, userinfo=b"")))


def read_answer(answer: httpx.Response) -> Any:
    """Return the `data` of a response in PiAPI's or Pi's envelope. Raises `Failure` for any other response."""
    answered(answer)
    body = _json_or_none(answer)
    if answer.status_code in _TEMPORARY:
        raise ServiceUnreachable(_explain(answer, body))
    if not answer.is_success:
        raise Failure(_exit_status(answer.status_code), _explain(answer, body))
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return None
    if not isinstance(body, dict) or not {"data", "code"} & body.keys():
        base = str(answer.url.copy_with(path="/", query=None)).rstrip("/")
        raise Failure(Status.UNREACHABLE, f"{base} does not respond as Ringback does; check RINGBACK_URL")
    if body.get("code", 200) not in _SUCCESS_CODES:
        raise Failure(_exit_status(body["code"]), _explain(answer, body))
    return body.get("data")


def path_segment(identifier: str) -> str:
    """Return an id as one segment of a URL path, with every special character quoted."""
    if not identifier or identifier in (".", ".."):
        raise Failure(Status.USAGE, f"{identifier!r} is not an id")
    with only_text():
        return quote(identifier, safe="")


def split_url(url: str, name: str) -> Any:
    """Return the parts of a URL. Raises `Failure` that calls it `name` if it is not an HTTP URL."""
    fault = Failure(Status.USAGE, f"{name} is not an http:// or https:// URL, such as http://127.0.0.1:8080")
    try:
        parts = urlsplit(url)
        httpx.URL(url)
        _ = parts.port
    except (ValueError, httpx.InvalidURL):
        raise fault from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise fault
    return parts


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json_or_none(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _exit_status(code: Any) -> Status:
    if not isinstance(code, int) or code >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _NOT_ALLOWED:
        return Status.UNREACHABLE
    return Status.USAGE if code >= HTTPStatus.BAD_REQUEST else Status.UNREACHABLE


def _explain(answer: httpx.Response, body: Any) -> str:
    """Return the error message of a response on one line, and what to do about it where that is known."""
    message = " ".join(_error_message(body).split()) or f"HTTP {answer.status_code}"
    # A response with a task carries the provider's refusal, which no other Ringback key changes.
    advice = None if isinstance(body, dict) and body.get("data") else _advice(answer)
    return f"{message.removesuffix('.')}; {advice}" if advice else message


def _advice(answer: httpx.Response) -> str | None:
    match answer.status_code:
        case HTTPStatus.UNAUTHORIZED if "authorization" not in answer.request.headers:
            return "set RINGBACK_API_KEY"
        case HTTPStatus.UNAUTHORIZED:
            return "check RINGBACK_API_KEY"
        case HTTPStatus.FORBIDDEN:
            return "use a key with the required scope (`ringback key create --scope ...`)"
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE if "retry-after" in answer.headers:
            return f"try again in {answer.headers['retry-after']} s"
    if answer.is_redirect:
        return f"the service has moved to {answer.headers.get('location', 'another URL')}, so set RINGBACK_URL to it"
    return None


def _error_message(body: Any) -> str:
    """Return the message of an error body in any of the API's forms; an empty string if it has none."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error")
    if isinstance(error, dict):
        if issues := error.get("issues"):
            return "; ".join(f"{issue['param']}: {issue['message']}" for issue in issues)
        return str(error.get("message") or body.get("message") or error.get("code") or "")
    return str(body.get("message") or error or body.get("detail") or "")
