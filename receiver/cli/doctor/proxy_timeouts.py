"""With `--slow`: does what stands before the service let a long poll and a stream live as long as they do."""

import asyncio
from time import monotonic

import httpx

from receiver.cli.doctor.public_url import exchange, new_probe
from receiver.cli.doctor.result import DoctorResult, bad, look, ok, skipped
from receiver.domain.keyring import KeyRing
from receiver.inbound.probe import LONGEST_HOLD
from receiver.settings import Settings

STREAM_SECONDS = 60.0
_FIRST_SECONDS = 5.0
"""A stream's first comment is sent at once: later, it was kept in a buffer."""
_MORE_SECONDS = 10.0


async def long_poll(
    settings: Settings, keyring: KeyRing, client: httpx.AsyncClient, seconds: float = LONGEST_HOLD
) -> DoctorResult:
    """Send a probe whose answer is held back as long as that of a long poll."""
    name, began = "long poll", monotonic()
    seen = await exchange(client_timeout(client, seconds), new_probe(settings, keyring, 4096, hold=seconds))
    took = monotonic() - began
    if isinstance(seen, DoctorResult):
        found = f"it ended after {took:.0f} s instead of {seconds:g}: {seen.found}"
        return bad(name, found, f"let the proxy wait for an answer for more than {seconds:g} s")
    return ok(name, f"an answer that took {took:.0f} s arrived")


async def stream(
    settings: Settings, api_key: str | None, client: httpx.AsyncClient, seconds: float = STREAM_SECONDS
) -> DoctorResult:
    """Hold a stream of events for some time."""
    name = "stream"
    if api_key is None:
        return skipped(name, "it needs an API key", "set RINGBACK_API_KEY")
    headers = {"accept": "text/event-stream", "authorization": f"Bearer {api_key}"}
    began, parts = monotonic(), 0
    first: float | None = None
    try:
        async with (
            asyncio.timeout(seconds),
            client.stream("GET", f"{settings.public_url}/api/v1/events", headers=headers, timeout=None) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                return look(name, f"HTTP {answer.status_code}", "set RINGBACK_API_KEY to a key of this service")
            async for _ in answer.aiter_bytes():
                parts += 1
                first = first or monotonic() - began
    except TimeoutError:
        if first is None or first > _FIRST_SECONDS:
            when = "nothing" if first is None else f"the first bytes after {first:.0f} s"
            return bad(name, f"{when} arrived: it is kept in a buffer", "let the proxy pass answers on unbuffered")
        return ok(name, f"was held for {seconds:g} s, and {parts} parts arrived as they were sent")
    except httpx.HTTPError:
        pass
    found = f"it ended after {monotonic() - began:.0f} s"
    return bad(name, found, "let the proxy wait for more than 60 s from one part of an answer to the next")


def client_timeout(client: httpx.AsyncClient, seconds: float) -> httpx.AsyncClient:
    """Let a client wait for this long and some more."""
    client.timeout = httpx.Timeout(seconds + _MORE_SECONDS)
    return client
