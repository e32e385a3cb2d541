"""A webhook at the address of another provider than its task's: the token of its path is good there too."""

from pathlib import Path

from receiver.domain.ids import new_id
from tests.fakes.inbound import hook_secret, notice
from tests.fakes.rows import RECEIPTS, select
from tests.fakes.world import in_process

SILENT = {"outcome": "never", "webhook": "lost"}


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
