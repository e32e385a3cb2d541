"""Retiring a master key as an operator does: add a key, restart, rotate, remove the old key, restart."""

from pathlib import Path

from tests.fakes.command import Ringback
from tests.fakes.verifiers import verify_standard
from tests.fakes.world import in_processes

OLD, NEW = "Qm7xV2kTz9RbW4cN8sLp", "Hy3GdK6wJf5XvB1tZq0M"
WAITING = {"duration": 60, "pending_seconds": 60}


async def test_an_old_master_key_is_retired_and_deliveries_are_signed_as_before(tmp_path: Path) -> None:
    async with in_processes(tmp_path, secret_key=OLD) as world:
        headers = {"x-token": "Lq8Zx3Km7TyW2rVc"}
        webhook = await world.webhook(event_types=["task.created"], headers=headers)
        await world.created(WAITING)
        await world.stop()
        world.environment["RINGBACK_SECRET_KEY"] = f"{OLD},{NEW}"
        await world.start()

        command = Ringback(world)
        before = await command.data("key", "rotate-master", "--status")
        old, new = (key["fingerprint"] for key in before["keys"])
        assert [(key["is_newest"], key["values"]) for key in before["keys"]] == [(False, 2), (True, 0)]
        after = await command.data("key", "rotate-master")
        assert [(key["fingerprint"], key["values"]) for key in after["keys"]] == [(old, 0), (new, 2)]
        assert (after["unreadable"], after["tasks"]["count"]) == (0, 1)
        entries = await command.data("audit", "list", "--action", "master_key.rotate")
        assert [entry["after"] for entry in entries["data"]] == [{"fingerprint": new}]
        status, out, _ = await command.run("key", "rotate-master", "--status")
        assert "webhooks of 1 tasks under way are verified by an earlier key" in out.replace("\n", " ")
        assert status == 0

        await world.stop()
        world.environment["RINGBACK_SECRET_KEY"] = NEW
        await world.start()
        assert "master key of tasks under way is missing" in world.log()
        world.subscriber.received.clear()
        await world.created(WAITING)
        await world.subscriber.until(len)
        (received,) = world.subscriber.received
        verify_standard(webhook["secret"], received)
        assert received.headers["x-token"] == headers["x-token"]
