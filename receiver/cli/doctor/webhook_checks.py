"""The subscribers' URLs: does each resolve, is it allowed, and is its certificate good. Nothing is sent to any."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from receiver.cli.doctor.result import DoctorResult, bad, look, ok
from receiver.cli.doctor.tls import CONNECT_SECONDS, FEW_DAYS, Handshake, handshake
from receiver.errors import RingbackError
from receiver.outbound.guard import AddressGuard
from receiver.outbound.target_url import target_url
from receiver.settings import Settings
from receiver.storage.reading import ReadBeside
from receiver.storage.subscriptions import newest_webhooks

_NAME = "webhooks"
_MOST = 500
_AT_ONCE = 16


async def webhook_checks(settings: Settings, read: ReadBeside) -> list[DoctorResult]:
    """Return what is wrong with the URLs of active webhooks, and how many there are."""
    webhooks = await read(newest_webhooks(_MOST + 1))
    guard, context = AddressGuard.from_settings(settings), ssl.create_default_context()
    turns = asyncio.Semaphore(_AT_ONCE)

    async def checked(webhook: Mapping[str, Any]) -> DoctorResult | None:
        async with turns:
            return await _check(webhook, guard, context)

    try:
        found = await asyncio.gather(*map(checked, webhooks[:_MOST]))
    finally:
        await guard.aclose()
    faults = [each for each in found if each is not None]
    return [*faults, _summary(webhooks, faults)]


def _summary(webhooks: Sequence[Any], faults: Sequence[DoctorResult]) -> DoctorResult:
    if len(webhooks) > _MOST:
        return ok(_NAME, f"the newest {_MOST} were looked at, {_MOST - len(faults)} of them are reached")
    return ok(_NAME, f"{len(webhooks) - len(faults)} of {len(webhooks)} active ones are reached")


async def _check(webhook: Mapping[str, Any], guard: AddressGuard, context: ssl.SSLContext) -> DoctorResult | None:
    """Return what is wrong with one; None if nothing is. Its path and query are not shown: they may have a secret."""
    url = webhook["endpoint_url"]
    parts = urlsplit(url)
    what = f"{webhook['uid']} ({parts.scheme}://{parts.netloc.rpartition('@')[2]})"
    try:
        await guard.check(url)
    except RingbackError as error:
        return bad(
            _NAME, f"{what}: {error.message}", "correct its URL, or name what is yours in RINGBACK_ALLOWED_TARGETS"
        )
    try:
        seen = await _connected(guard, url, context)
    except OSError as error:
        return bad(_NAME, f"{what}: not reached ({error.strerror or type(error).__name__})", "start that server")
    if seen.fault:
        return bad(_NAME, f"{what}: {seen.fault}", "mend the subscriber's certificate: deliveries to it fail")
    if seen.days_left is not None and seen.days_left < FEW_DAYS:
        return look(_NAME, f"{what}: its certificate ends in {seen.days_left} days", "have the subscriber renew it")
    return None


async def _connected(guard: AddressGuard, url: str, context: ssl.SSLContext) -> Handshake:
    """Connect to the first address that can be reached of those that the guard allows. Raises `OSError`."""
    target = target_url(url)
    host, port = target.raw_host or "", target.port or 443
    unreached: OSError | None = None
    for address in await _addresses(guard, target.scheme, host, port):
        try:
            if target.scheme == "https":
                return await handshake(address, port, host, context)
            async with asyncio.timeout(CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(address, port)
        except OSError as error:  # TimeoutError is one
            unreached = error
        else:
            writer.transport.abort()
            return Handshake("")
    raise unreached or OSError("it has no address")


async def _addresses(guard: AddressGuard, scheme: str, host: str, port: int) -> list[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        return [each["host"] for each in await guard.resolve(scheme, host, port)]
