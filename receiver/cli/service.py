"""Talking to the service: where it is, with which key, and what its answers mean for the exit status."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from receiver.cli.failure import Failure, ServiceUnreachable, Status
from receiver.settings import client_settings

TIMEOUT = httpx.Timeout(60.0, connect=10.0, pool=None)
"""Seconds; a create may wait 10 for the provider, and more when the service is busy."""
_MOST_A_PAGE = 200
_SUCCESS_CODES = (0, 200)
"""PiAPI's own code for success, in the envelope."""
_NOT_ALLOWED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})

_PASSING = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""What a proxy says while the service starts again, and the service while it is full."""


def connection() -> dict[str, Any]:
    """Return the keyword arguments for an httpx client of the service, from `RINGBACK_URL` and `RINGBACK_API_KEY`."""
    url, key = client_settings()
    parts = split_url(url, "RINGBACK_URL")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise Failure(Status.USAGE, "RINGBACK_API_KEY has characters that no key has; copy it again")
    return {
        "base_url": url.rstrip("/"),
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": TIMEOUT,
        # A proxy of the environment has no business with loopback.
        "trust_env": not is_loopback(parts.hostname or ""),
    }


@contextmanager
def service() -> Iterator["ServiceClient"]:
    """Open a connection to the service for one command."""
    with httpx.Client(**connection()) as client:
        yield ServiceClient(client)


class ServiceClient:
    """The service's HTTP interface, as the commands use it. Every fault is a `Failure`."""

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
        """Send a request and return the `data` of its answer."""
        with reaching(self._client.base_url):
            answer = self._client.request(method, path, params=params, json=body, headers=headers)
        return read_answer(answer)

    def collect(self, path: str, params: Mapping[str, Any] | None = None, most: int | None = None) -> dict[str, Any]:
        """Return a list with at most `most` items (all, if None), whatever number of pages that takes."""
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            size = _MOST_A_PAGE if most is None else min(_MOST_A_PAGE, most - len(found))
            page = self.call("GET", path, params={**(params or {}), "limit": size, **cursor})
            found += page["data"]
            more = bool(page.get("has_more") and page.get("next_cursor"))
            if not more or len(found) == most:
                next_cursor = page["next_cursor"] if more else None
                return {"object": "list", "data": found, "has_more": more, "next_cursor": next_cursor}
            cursor = {"cursor": page["next_cursor"]}


@contextmanager
def reaching(url: httpx.URL) -> Iterator[None]:
    """Turn what can go wrong on the way to the service into a `Failure` that says what to do."""
    place = str(url).rstrip("/")
    try:
        yield
    except httpx.ConnectError:
        raise ServiceUnreachable(f"cannot reach {place}: is `ringback serve` running? Set RINGBACK_URL.") from None
    except httpx.TimeoutException:
        raise ServiceUnreachable(f"{place} gives no answer: is it a Ringback? Set RINGBACK_URL.") from None
    except httpx.TransportError:
        raise ServiceUnreachable(
            f"the connection to {place} broke: what was asked for may or may not have been done"
        ) from None


def read_answer(answer: httpx.Response) -> Any:
    """Return the `data` of an answer in either envelope, PiAPI's or Pi's; raises `Failure` for any other answer."""
    body = _body(answer)
    if answer.status_code in _PASSING:
        raise ServiceUnreachable(_explain(answer, body))
    if not answer.is_success:
        raise Failure(_status_for(answer.status_code), _explain(answer, body))
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return None
    if not isinstance(body, dict) or not {"data", "code"} & body.keys():
        place = str(answer.url.copy_with(path="/", query=None)).rstrip("/")
        raise Failure(Status.UNREACHABLE, f"{place} does not answer as Ringback does: is RINGBACK_URL right?")
    if body.get("code", 200) not in _SUCCESS_CODES:
        raise Failure(_status_for(body["code"]), _explain(answer, body))
    return body.get("data")


def segment(identifier: str) -> str:
    """Return an id as one segment of a path, whatever is in it."""
    if not identifier or identifier in (".", ".."):
        raise Failure(Status.USAGE, f"{identifier!r} is no id")
    return quote(identifier, safe="")


def split_url(url: str, name: str) -> Any:
    """Return a URL's parts. Raises `Failure` that says what `name` must be."""
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
    """Say whether a host is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _status_for(code: Any) -> Status:
    if not isinstance(code, int) or code >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _NOT_ALLOWED:
        return Status.UNREACHABLE
    return Status.USAGE if code >= HTTPStatus.BAD_REQUEST else Status.UNREACHABLE


def _explain(answer: httpx.Response, body: Any) -> str:
    said = " ".join(_said(body).split()) or f"HTTP {answer.status_code}"
    match answer.status_code:
        case HTTPStatus.UNAUTHORIZED if "authorization" not in answer.request.headers:
            return f"{said}: set RINGBACK_API_KEY"
        case HTTPStatus.UNAUTHORIZED:
            return f"{said}: is RINGBACK_API_KEY right?"
        case HTTPStatus.FORBIDDEN:
            return f"{said}: this key may not do that; use one with more rights (`ringback key create --scope ...`)"
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE if "retry-after" in answer.headers:
            return f"{said}: try again in {answer.headers['retry-after']} s"
    if answer.is_redirect:
        return f"the service has moved to {answer.headers.get('location', 'another place')}: set RINGBACK_URL to it"
    return said


def _said(body: Any) -> str:
    """Return what an error body says, whatever its form."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error")
    if isinstance(error, dict):
        if issues := error.get("issues"):
            return "; ".join(f"{issue['param']}: {issue['message']}" for issue in issues)
        return str(error.get("message") or error.get("code") or "")
    return str(body.get("message") or error or body.get("detail") or "")
