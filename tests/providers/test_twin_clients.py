"""The sandbox's twins of providers, as the public clients and verifiers of these providers see them, unchanged."""

import asyncio
import base64
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import standardwebhooks
import uvicorn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from replicate.exceptions import ModelError
from replicate.webhook import InvalidSignatureError, Webhooks
from starlette.types import ASGIApp

from receiver.sandbox import create_sandbox
from tests.fakes.certificate import self_signed
from tests.fakes.replicate_client import connected
from tests.fakes.servers import bound, served
from tests.fakes.subscriber import ReceivedDelivery, Subscriber, listening
from tests.fakes.world import QUICK

pytestmark = pytest.mark.no_database("only the sandbox is asked")

APP = "fal-ai/flux/dev"
USES_FAL = f"""
import asyncio, json
import fal_client
from fal_client import Completed, FalClientHTTPError

async def main():
    handle = await fal_client.submit_async("{APP}", arguments={{"prompt": "a cat"}})
    async for status in handle.iter_events(with_logs=True, interval=0.02):
        pass
    asked = {{"prompt": "a cat", "sandbox": {{"outcome": "failed"}}}}
    failing = await fal_client.submit_async("{APP}", arguments=asked)
    try:
        await failing.get()
        error = None
    except FalClientHTTPError as caught:
        error = [caught.status_code, str(caught.message)]
    slow = await fal_client.submit_async("{APP}", arguments={{"sandbox": {{"pending_seconds": 60}}}})
    queued = await fal_client.status_async("{APP}", slow.request_id)
    await slow.cancel()
    print(json.dumps({{
        "last": type(status).__name__,
        "result": await fal_client.result_async("{APP}", handle.request_id),
        "subscribed": await fal_client.subscribe_async("{APP}", arguments={{"prompt": "a dog"}}),
        "error": error,
        "queued": type(queued).__name__,
        "cancelled": type(await slow.status()).__name__,
    }}))

asyncio.run(main())
"""


class _Server(uvicorn.Server):
    """Leaves the signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served_with_tls(app: ASGIApp, certificate: Path) -> AsyncIterator[int]:
    """Serve an app with a certificate; yield the port."""
    taken: socket.socket = bound()
    config = uvicorn.Config(app, log_level="error", ws="none", ssl_certfile=certificate, ssl_keyfile=certificate)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[taken]))
    try:
        yield taken.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def test_fal_s_client_submits_follows_and_cancels_at_the_twin(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "localhost")
    async with served_with_tls(create_sandbox(QUICK), certificate) as port:
        environment = {
            **os.environ,
            "FAL_QUEUE_RUN_HOST": f"localhost:{port}/fal",  # read when the client is imported; https alone
            "FAL_KEY": "id:secret",
            "SSL_CERT_FILE": str(certificate),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", USES_FAL, env=environment, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            printed, _ = await process.communicate()
    assert process.returncode == 0
    seen = json.loads(printed)
    assert (seen["last"], seen["queued"], seen["cancelled"]) == ("Completed", "Queued", "Completed")
    assert seen["result"].keys() == seen["subscribed"].keys()
    assert seen["error"][0] == 422
    assert "task failed" in seen["error"][1]


@asynccontextmanager
async def twins() -> AsyncIterator[tuple[str, Subscriber]]:
    async with served(create_sandbox(QUICK)) as base, listening() as subscriber:
        yield base, subscriber


async def first(subscriber: Subscriber) -> ReceivedDelivery:
    await subscriber.until(lambda received: any(b"succeeded" in each.body or b"OK" in each.body for each in received))
    return subscriber.received[-1]


async def test_replicate_s_client_runs_at_the_twin_and_its_signatures_verify() -> None:
    async with twins() as (base, subscriber), connected(f"{base}/replicate", "any") as client:
        made = await client.predictions.async_create(
            "stability-ai/sdxl", {"prompt": "a cat"}, webhook=subscriber.url, webhook_events_filter=["completed"]
        )
        await made.async_wait()
        assert (made.status, len(made.output or [])) == ("succeeded", 1)
        with pytest.raises(ModelError, match="task failed"):
            await client.async_run("stability-ai/sdxl", input={"sandbox": {"outcome": "failed"}})
        secret = await client.webhooks.default.async_secret()
        delivery = await first(subscriber)
    Webhooks.validate(headers=delivery.headers, body=delivery.body.decode(), secret=secret, tolerance=60)
    assert standardwebhooks.Webhook(secret.key).verify(delivery.body, delivery.headers) == delivery.json
    with pytest.raises(InvalidSignatureError):
        Webhooks.validate(headers=delivery.headers, body=delivery.body.decode() + " ", secret=secret)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret.key).verify(delivery.body + b" ", delivery.headers)


def verified_by_fal(headers: dict[str, str], body: bytes, keys: list[dict[str, Any]]) -> bool:
    """Verify a webhook as fal's documentation describes it, down to base64 that must have its padding."""
    names = ("request-id", "user-id", "timestamp", "signature")
    values = [headers[f"x-fal-webhook-{name}"] for name in names]
    if abs(time.time() - int(values[2])) > 300:
        return False
    message = "\n".join([*values[:3], hashlib.sha256(body).hexdigest()]).encode()
    for key in keys:
        try:
            raw = base64.urlsafe_b64decode(key["x"])
            Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(values[3]), message)
        except (ValueError, InvalidSignature):
            continue
        return True
    return False


async def test_the_signature_of_fal_s_twin_verifies_as_fal_documents_it() -> None:
    async with twins() as (base, subscriber), httpx.AsyncClient(base_url=f"{base}/fal") as http:
        headers, query = {"authorization": "Key any"}, {"fal_webhook": subscriber.url}
        assert (await http.post(f"/{APP}", json={"prompt": "a cat"}, params=query, headers=headers)).is_success
        delivery = await first(subscriber)
        keys = (await http.get("/.well-known/jwks.json")).json()["keys"]
        assert verified_by_fal(delivery.headers, delivery.body, keys)
        assert not verified_by_fal(delivery.headers, delivery.body + b" ", keys)
        stale = {**delivery.headers, "x-fal-webhook-timestamp": str(int(time.time()) - 301)}
        assert not verified_by_fal(stale, delivery.body, keys)
        await http.post("/rotate-keys")
        rotated = (await http.get("/.well-known/jwks.json")).json()["keys"]
        assert not verified_by_fal(delivery.headers, delivery.body, rotated)
