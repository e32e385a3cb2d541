"""One resource of each kind, for tests that ask every path."""

from tests.fakes.inbound import post
from tests.fakes.world import World

LONG_AGO = "2020-01-01T00:00:00Z"
RUN = {"steps": [{"id": "only", "action": "Qubico/flux1-schnell:txt2img", "input": {"prompt": "a cat"}}]}


async def one_of_each(world: World) -> dict[str, str]:
    """Make one resource of each kind; return their ids, by the names of the parameters in paths."""
    webhook = await world.webhook()
    task_id = await world.created({"outcome": "failed"}, retry={"max_attempts": 2, "backoff_seconds": 0})
    await world.ended(task_id)
    begun = await world.api.post("/api/v1/runs", json=RUN)
    assert begun.status_code == 202, begun.text
    run_id = begun.json()["data"]["run_id"]
    await world.api.get(f"/api/v1/runs/{run_id}", params={"wait_for_completion": "true"})
    replay = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json={"since": LONG_AGO})
    action = await world.api.post("/api/v1/tasks/cancel", json={"model": "no-such-model"})
    key = await world.api.post("/api/v1/keys", json={"name": "one"})
    account = await world.api.post(
        "/api/v1/providers/fal/accounts", json={"name": "one", "credentials": {"api_key": "a-key-7Rk2Vd"}}
    )
    organization = await world.api.post("/api/v1/organizations", json={"name": "one"})
    delivery = (await world.api.get("/api/v1/deliveries")).json()["data"]["data"][0]
    assert (await post(world, task_id, content=b"no task")).status_code == 400
    receipt = (await world.api.get("/api/v1/receipts")).json()["data"]["data"][0]
    return {
        "task_id": task_id,
        "job_id": task_id,
        "run_id": run_id,
        "webhook_id": webhook["id"],
        "replay_id": replay.json()["data"]["id"],
        "bulk_action_id": action.json()["data"]["id"],
        "key_id": key.json()["data"]["id"],
        "organization_id": organization.json()["data"]["id"],
        "provider": "fal",
        "account": account.json()["data"]["name"],
        "delivery_id": delivery["id"],
        "receipt_id": receipt["id"],
    }
