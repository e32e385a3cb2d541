"""The twins' webhooks are signed as the libraries of Standard Webhooks expect it."""

from typing import Any

import httpx
import pytest
import standardwebhooks

from receiver.sandbox import create_sandbox
from tests.fakes.servers import served
from tests.fakes.subscriber import listening
from tests.fakes.world import QUICK

AUTH = {"authorization": "Bearer any-key"}
RESPONSE: dict[str, Any] = {"model": "gpt-5-mini", "input": "a cat", "background": True}


async def test_openai_s_twin_signs_with_each_secret_that_is_good() -> None:
    async with (
        served(create_sandbox(QUICK)) as provider,
        listening() as subscriber,
        httpx.AsyncClient(base_url=f"{provider}/openai/v1", headers=AUTH) as client,
    ):
        endpoint = {"name": "ringback", "url": subscriber.url}
        old = (await client.post("/webhook_endpoints", json=endpoint)).json()
        keep = {"keep_old_secret_active_for_24_hours": True}
        new = (await client.post(f"/webhook_endpoints/{old['id']}/rotate_secret", json=keep)).json()
        made = (await client.post("/responses", json=RESPONSE)).json()
        await subscriber.until(len)
        (told,) = subscriber.received
        for secret in (old["secret"], new["secret"]):
            event = standardwebhooks.Webhook(secret).verify(told.body, told.headers)
            assert (event["type"], event["data"]) == ("response.completed", {"id": made["id"]})

        await client.post(f"/webhook_endpoints/{old['id']}/rotate_secret", json={})
        await client.post("/responses", json=RESPONSE)
        await subscriber.until(lambda received: len(received) > 1)
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(old["secret"]).verify(subscriber.received[1].body, subscriber.received[1].headers)


async def test_replicate_s_twin_signs_with_the_secret_that_it_shows() -> None:
    async with (
        served(create_sandbox(QUICK)) as provider,
        listening() as subscriber,
        httpx.AsyncClient(base_url=f"{provider}/replicate/v1", headers=AUTH) as client,
    ):
        wanted = {"version": "a/b", "input": {"prompt": "a cat"}, "webhook": subscriber.url}
        made = (await client.post("/predictions", json=wanted)).json()
        await subscriber.until(lambda received: any(each.json["status"] == "succeeded" for each in received))
        secret = (await client.get("/webhooks/default/secret")).json()["key"]
        for told in subscriber.received:
            assert standardwebhooks.Webhook(secret).verify(told.body, told.headers)["id"] == made["id"]
