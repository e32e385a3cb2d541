"""The public URL as a provider meets it: its name, its certificate, a probe that comes back to this installation."""

import asyncio
import errno
import hashlib
import secrets
import socket
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson
from msgspec import Struct

from receiver.cli.console import size_text
from receiver.cli.doctor.result import DoctorOutcome, DoctorResult, bad, look, ok, skipped
from receiver.cli.doctor.tls import CONNECT_SECONDS, FEW_DAYS, handshake
from receiver.cli.service import is_loopback
from receiver.clock import wall_now
from receiver.domain.keyring import KeyRing
from receiver.hidden_fields import HidesFields
from receiver.inbound.probe import MOST_PROBE_BYTES
from receiver.settings import Settings

_SECONDS = 20.0
_MOST_ANSWER_BYTES = 65_536
_NAME, _PROBE = "public URL", "probe"
_MARKER = "a-value-of-the-doctor"
_HEADERS = {
    "x-webhook-secret": "webhooks of the provider are refused without it",
    "authorization": "API keys and Pi's clients need it",
    "x-api-key": "PiAPI's clients send their key in it",
    "content-type": "bodies are read by it",
    "idempotency-key": "a repeated request would create a second task",
    "last-event-id": "a stream that is resumed would miss events",
    "traceparent": "traces would be cut",
}
"""What a proxy has to pass on, and what is lost with it."""


class Sent(HidesFields, Struct, frozen=True):
    """A probe that was sent."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers"})

    url: str
    headers: Mapping[str, str]
    body: bytes


async def resolves_and_connects(settings: Settings) -> list[DoctorResult]:
    """Check that the public URL's name resolves, and that its server is reached, with a certificate that is good."""
    parts = urlsplit(settings.public_url or "")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # TimeoutError is an OSError
        return [bad(_NAME, f"{host} does not resolve", "correct RINGBACK_PUBLIC_URL, or the DNS records of that name")]
    addresses = sorted({str(each[4][0]) for each in found})
    if parts.scheme == "https":
        return [await _with_tls(host, port, address) for address in addresses]
    return [await _without_tls(port, address) for address in addresses]


def httpx_context() -> Any:
    """Return the TLS context by which a public certificate is verified, as in calls to providers."""
    return httpx.create_ssl_context()


async def _with_tls(host: str, port: int, address: str) -> DoctorResult:
    try:
        seen = await handshake(address, port, host, httpx_context())
    except OSError as error:
        return _unreached(address, port, error)
    until = (
        "" if seen.until is None else f", good until {seen.until:%Y-%m-%d} ({seen.days_left} days), from {seen.issuer}"
    )
    if seen.fault:
        found = f"{address}: {seen.fault}{until}"
        return bad(
            _NAME, found, "give the proxy a certificate for this name with its whole chain, and renew it in time"
        )
    if seen.days_left is not None and seen.days_left < FEW_DAYS:
        return look(
            _NAME, f"{address}: the certificate ends soon{until}", "renew it, and find out why that was not done"
        )
    return ok(_NAME, f"{address} is reached; certificate{until.removeprefix(',')}")


async def _without_tls(port: int, address: str) -> DoctorResult:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return _unreached(address, port, error)
    writer.close()
    return ok(_NAME, f"{address} port {port} is reached, without TLS")


def _unreached(address: str, port: int, error: OSError) -> DoctorResult:
    if ":" in address and error.errno == errno.ENETUNREACH:
        return skipped(_NAME, f"{address}: this machine has no IPv6 to try it with")
    reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or "refused"
    return bad(
        _NAME,
        f"{address} port {port} is not reached from here ({reason})",
        "start the proxy, and open the port; if this machine alone cannot reach its public address, try from another",
    )


async def probe(settings: Settings, keyring: KeyRing, client: httpx.AsyncClient) -> list[DoctorResult]:
    """Send a signed probe to the public URL; return what arrived of it at the service behind it."""
    sent = new_probe(settings, keyring, 4096)
    first = await exchange(client, sent)
    if isinstance(first, DoctorResult):
        return [first]
    results = [ok(_PROBE, "a POST to the public URL came back to this installation"), *compared(sent, first, settings)]
    large = new_probe(settings, keyring, MOST_PROBE_BYTES)
    second = await exchange(client, large)
    size = size_text(len(large.body))
    if isinstance(second, DoctorResult):
        mend = f"let the proxy pass bodies of {size} (RINGBACK_MAX_BODY_BYTES) to /hooks/"
        return [*results, bad("large body", f"{size}: {second.found}", mend)]
    return [*results, _body("large body", large, second)]


def public_client(settings: Settings) -> httpx.AsyncClient:
    """Return a client of the public URL: directly on loopback, else as the environment's proxy variables say."""
    host = urlsplit(settings.public_url or "").hostname or ""
    return httpx.AsyncClient(verify=httpx_context(), timeout=_SECONDS, trust_env=not is_loopback(host))


def new_probe(settings: Settings, keyring: KeyRing, size: int, *, hold: float = 0) -> Sent:
    """Return a probe with a body of `size` bytes, or as many as the service takes; `hold` is in seconds."""
    probe_id = secrets.token_urlsafe(16)
    token = keyring.probe_token(probe_id, wall_now().timestamp())
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    headers = {
        **dict.fromkeys(_HEADERS, _MARKER),
        "x-webhook-secret": token,
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "traceparent": trace,
    }
    query = f"?hold={hold:g}" if hold else ""
    return Sent(
        f"{settings.public_url}/hooks/probe/{probe_id}{query}", headers, _body_of(min(size, settings.max_body_bytes))
    )


def _body_of(size: int) -> bytes:
    """Return JSON that changes if it is read and written again, or taken for text in another encoding."""
    start = '{"b":1.0,  "a": 1e2, "text": "\u00e9\u2028\\u00e9 <script>", "padding": "'.encode()
    return start + secrets.token_hex(size)[: size - len(start) - 2].encode() + b'"}'


async def exchange(client: httpx.AsyncClient, sent: Sent) -> Mapping[str, Any] | DoctorResult:
    """Send a probe; return what the service saw of it, or the result if it did not come back."""
    content = b""
    try:
        async with client.stream("POST", sent.url, headers=sent.headers, content=sent.body) as answer:
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > _MOST_ANSWER_BYTES:
                    break
    except httpx.TimeoutException:
        return bad(_PROBE, "no answer in time", "look whether the proxy reaches the service, and into both logs")
    except httpx.HTTPError as error:
        return bad(_PROBE, f"the connection broke ({type(error).__name__})", "look into the proxy's log")
    if answer.is_redirect:
        return _redirected(answer, sent)
    document = _document(content)
    seen = document.get("data") if document is not None and answer.status_code == HTTPStatus.OK else None
    if isinstance(seen, dict) and seen.get("object") == "probe" and seen.get("id") == _id_of(sent):
        return seen
    return _not_ours(answer.status_code, is_json=document is not None and "code" in document)


def _id_of(sent: Sent) -> str:
    return urlsplit(sent.url).path.rpartition("/")[2]


def _document(content: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _redirected(answer: httpx.Response, sent: Sent) -> DoctorResult:
    target = urlsplit(str(answer.url.join(answer.headers.get("location", ""))))
    host, path = target.netloc.rpartition("@")[2], f"/hooks/probe/{_id_of(sent)}"
    mend = "end the redirect for /hooks/"
    if target.path.endswith(path):
        base = urlunsplit((target.scheme, host, target.path.removesuffix(path), "", ""))
        mend = f"set RINGBACK_PUBLIC_URL to {base}, or {mend}"
    where = urlunsplit((target.scheme, host, target.path, "", ""))
    if answer.status_code in (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT):
        return bad(_PROBE, f"{answer.status_code} to {where}: a provider need not follow it", mend)
    return bad(_PROBE, f"{answer.status_code} to {where}: who follows it arrives without the body", mend)


def _not_ours(status: int, *, is_json: bool) -> DoctorResult:
    """Return what an answer means that is no probe's; `is_json`: it has the form of Ringback's own."""
    match status:
        case HTTPStatus.UNAUTHORIZED if is_json:
            found = "the service there did not accept the probe's token"
            mend = (
                "run the doctor with that service's master key (RINGBACK_SECRET_KEY, or the key's file); let the proxy "
                "pass X-Webhook-Secret on; and set both clocks right"
            )
        case HTTPStatus.NOT_FOUND if is_json:
            found = "404: the service has no such path"
            mend = (
                "does the proxy strip a prefix that RINGBACK_ROOT_PATH does not name? Or is an older version running?"
            )
        case HTTPStatus.BAD_GATEWAY | HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.GATEWAY_TIMEOUT if not is_json:
            found = f"{status} from the proxy: it does not reach the service"
            mend = "start the service, and correct the address that the proxy has of it"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            found, mend = "413: the body is too large for the proxy", "raise its limit for /hooks/"
        case _:
            found = f"{status}: an answer that is not Ringback's"
            mend = "let the proxy pass POST /hooks/ to the service, without a sign-in, a page or a cache before it"
    return bad(_PROBE, found, mend)


def compared(sent: Sent, seen: Mapping[str, Any], settings: Settings) -> Iterator[DoctorResult]:
    """Yield what differs between what was sent and what arrived."""
    yield from _headers(sent, seen)
    yield _body("body", sent, seen)
    yield _client(seen, settings)


def _headers(sent: Sent, seen: Mapping[str, Any]) -> Iterator[DoctorResult]:
    arrived: dict[str, list[int]] = {}
    for each in seen["headers"]:
        arrived.setdefault(each["name"], []).append(each["bytes"])
    is_right = True
    for name, reason in _HEADERS.items():
        wanted = len(sent.headers[name])
        if arrived.get(name) == [wanted]:
            continue
        is_right = False
        what = "drops" if name not in arrived else "repeats" if len(arrived[name]) > 1 else "changes"
        result = DoctorResult(
            "headers",
            DoctorOutcome.BAD if name in ("x-webhook-secret", "authorization", "x-api-key") else DoctorOutcome.LOOK,
            f"what stands before the service {what} {name.title()}: {reason}",
            f"let it pass {name.title()} on as it is",
        )
        yield result
    if is_right:
        yield ok("headers", f"all {len(_HEADERS)} that matter arrive; request id {seen.get('request_id')}")


def _body(name: str, sent: Sent, seen: Mapping[str, Any]) -> DoctorResult:
    if seen["body"]["sha256"] == hashlib.sha256(sent.body).hexdigest():
        return ok(name, f"{size_text(len(sent.body))} arrive as they were sent")
    found = f"{len(sent.body)} bytes were sent, and {seen['body']['bytes']} other bytes arrived"
    return bad(name, found, "let nothing before the service read, filter or write bodies again")


def _client(seen: Mapping[str, Any], settings: Settings) -> DoctorResult:
    name, client = "client address", seen["client"]
    names = {each["name"] for each in seen["headers"]}
    is_https = (settings.public_url or "").startswith("https:")
    if "x-forwarded-for" in names and not seen["is_from_trusted_proxy"]:
        found = f"the service takes the proxy at {client} for the client of every request"
        return look(name, found, f"set RINGBACK_TRUSTED_PROXIES to {client}, if that is your proxy's address")
    if is_https and "x-forwarded-for" not in names:
        found = "no X-Forwarded-For arrives: the service takes the proxy for the client of every request"
        return look(name, found, "let the proxy send X-Forwarded-For and X-Forwarded-Proto")
    if is_https and seen["scheme"] != "https":
        return look(name, "the service believes that it is http", "let the proxy send X-Forwarded-Proto")
    return ok(name, f"the service saw {client}, over {seen['scheme']}")
