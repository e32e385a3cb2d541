"""Provider webhooks that a test posts itself."""

import time
from typing import Any

import httpx

from receiver.domain.keyring import KeyRing
from receiver.serving.master_keys import master_keys
from tests.fakes.world import World

SILENT = {"outcome": "never", "webhook": "lost"}
"""A script for the provider: the task never ends and all its webhooks are lost, so that the test alone posts them."""
PICTURE = {"image_url": "https://example.com/i.png"}
"""The output of a task that generates an image."""


def hook_secret(world: World, task_id: str) -> str:
    """Return the webhook secret that Ringback sent to the provider for this task."""
    return KeyRing(master_keys(world.settings)).hook_secret(task_id)


async def refused_count(world: World, provider: str = "piapi") -> float:
    """Return the metric of a provider's webhooks that were refused for their secret or signature."""
    for line in (await world.api.get("/metrics")).text.splitlines():
        if line.startswith(f'ringback_inbound_refused_total{{provider="{provider}"}}'):
            return float(line.rpartition(" ")[2])
    return 0.0


def notice(provider_task_id: str, status: str, **fields: Any) -> dict[str, Any]:
    """Return a webhook's body (`receiver/providers/piapi/CONTRACT.md`, section "Webhook")."""
    task = {"task_id": provider_task_id, "model": "Qubico/flux1-schnell", "task_type": "txt2img", "status": status}
    return {"timestamp": int(time.time()), "data": {**task, **fields}}


async def report(world: World, task_id: str, status: str, **fields: Any) -> httpx.Response:
    """Post a webhook for the task's current attempt."""
    task = await world.task(task_id)
    body = notice(task["provider_task_id"], status, **fields)
    return await post(world, task_id, json=body, attempt=task["attempt"])


async def post(
    world: World,
    task_id: str,
    *,
    secret: str | None = None,
    attempt: int = 1,
    traceparent: str | None = None,
    **content: Any,
) -> httpx.Response:
    """Post any content to a task's webhook URL, with the right secret unless `secret` is given."""
    secret = hook_secret(world, task_id) if secret is None else secret
    return await world.provider.post(
        f"{world.base}/hooks/piapi/{task_id}",
        params={"attempt": attempt} if attempt > 1 else None,
        headers={
            b"x-webhook-secret": secret.encode("latin-1"),
            **({b"traceparent": traceparent.encode()} if traceparent else {}),
        },
        **content,
    )
