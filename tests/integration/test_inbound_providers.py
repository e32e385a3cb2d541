"""A right token proves nothing alone where webhooks are signed, nor at the address of another provider."""

from pathlib import Path

from receiver.domain.ids import new_id
from tests.fakes.inbound import SILENT, hook_secret, notice, refused_count
from tests.fakes.rows import RECEIPTS, select
from tests.fakes.world import in_process


async def test_a_provider_that_signs_nothing_is_no_way_around_the_signature_of_another(tmp_path: Path) -> None:
    async with in_process(tmp_path, poll_first_seconds="600") as world:
        created = await world.create(SILENT, provider="replicate", model="stability-ai/sdxl", task_type="any")
        uid = created.json()["data"]["task_id"]
        token, before = hook_secret(world, uid), await world.task(uid)
        for name in (before["provider_task_id"], new_id()):
            forged = notice(name, "completed", output={"image_url": "https://example.com/forged.png"})
            by_path = await world.provider.post(f"{world.base}/hooks/piapi/{uid}/{token}", json=forged)
            headers = {"x-webhook-secret": token}
            by_header = await world.provider.post(f"{world.base}/hooks/piapi/{uid}", json=forged, headers=headers)
            assert {by_path.status_code, by_header.status_code} == {200}
        after = await world.task(uid)
        assert (after["status"], after["output"]) == (before["status"], None)
        kept = select(world, RECEIPTS)
        assert {(each["task_uid"], each["reason"], each["organization_id"]) for each in kept} == {
            (uid, "conflicting", 1)
        }


async def test_a_right_token_with_a_wrong_signature_is_401_and_counted(tmp_path: Path) -> None:
    async with in_process(tmp_path, poll_first_seconds="600") as world:
        created = await world.create(SILENT, provider="replicate", model="stability-ai/sdxl", task_type="any")
        uid = created.json()["data"]["task_id"]
        before = await refused_count(world, "replicate")
        there = {"id": (await world.task(uid))["provider_task_id"], "status": "succeeded", "output": []}
        answer = await world.provider.post(f"{world.base}/hooks/replicate/{uid}/{hook_secret(world, uid)}", json=there)
        assert (answer.status_code, "signature" in answer.text) == (401, True)
        assert await refused_count(world, "replicate") == before + 1
        assert (await world.task(uid))["status"] != "completed"
