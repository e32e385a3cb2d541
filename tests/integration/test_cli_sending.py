"""`ringback webhook test|replay|recover|rotate` and `ringback delivery` against a real service."""

from pathlib import Path

import pytest

from tests.fakes.command import Ringback
from tests.fakes.past_events import add_events
from tests.fakes.rows import eventually
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.sqlite_only("the commands use HTTP alone; other tests cover the database")


async def test_a_replay_is_waited_for(world: World) -> None:
    ringback, webhook = Ringback(world), await world.webhook()
    add_events(world, 30)
    done = await ringback.data("webhook", "replay", webhook["id"], "--since", "2h", "--wait")
    assert (done["kind"], done["deliveries"], done["delivered"], done["pending"]) == ("replay", 30, 30, 0)
    status, out, _ = await ringback.run("webhook", "replay", webhook["id"], "--since", "2h", "--event", "task.failed")
    assert status == 0
    assert "task.failed" in out
    status, _, err = await ringback.run("webhook", "replay", webhook["id"], "--since", "2h", "--until", "3h")
    assert (status, "after since" in err) == (2, True)


async def test_dead_deliveries_are_listed_shown_and_recovered(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0") as world:
        ringback, webhook = Ringback(world), await world.webhook(headers={"X-Tenant": "confidential"})
        world.subscriber.answer = lambda _number, _request: 500
        for _ in range(2):
            await world.ended(await world.created())
        await eventually(world, "SELECT * FROM delivery WHERE status = 'dead'", lambda rows: len(rows) == 2)
        dead = (await ringback.data("delivery", "list", "--status", "dead", "--webhook", webhook["id"]))["data"]
        assert len(dead) == 2
        status, out, _ = await ringback.run("delivery", "list", "--created-after", "1h")
        assert (status, out.split().count("dead"), out.split().count("500")) == (0, 2, 2)
        status, out, _ = await ringback.run("delivery", "get", dead[0]["id"])
        assert (status, "webhook-signature: ***" in out, "confidential" in out) == (0, True, False)
        failed = await ringback.data("webhook", "recover", webhook["id"], "--since", "1h", "--wait", status=1)
        assert failed["dead"] == 2
        world.subscriber.answer = lambda _number, _request: 200
        assert (await ringback.run("delivery", "retry", dead[0]["id"]))[0] == 0
        await eventually(world, "SELECT * FROM delivery WHERE status = 'delivered'", lambda rows: len(rows) == 1)
        done = await ringback.data("webhook", "recover", webhook["id"], "--since", "1h", "--wait")
        assert (done["deliveries"], done["delivered"]) == (1, 1)
        assert (await ringback.run("delivery", "retry", "unknown"))[0] == 2


async def test_a_wait_for_a_replay_times_out(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,3600") as world:
        ringback, webhook = Ringback(world), await world.webhook()
        world.subscriber.answer = lambda _number, _request: 500
        add_events(world, 1)
        arguments = ("webhook", "replay", webhook["id"], "--since", "2h", "--wait")
        for seconds in ("0", "0.2"):
            status, _, err = await ringback.run(*arguments, "--timeout", seconds)
            assert (status, f"not ended after {seconds} s" in err) == (4, True)


async def test_a_ping_is_sent_and_its_response_printed(world: World) -> None:
    ringback, webhook = Ringback(world), await world.webhook()
    tried = await ringback.data("webhook", "test", webhook["id"])
    assert (tried["delivered"], tried["status_code"], tried["response"]) == (True, 200, "heard")
    world.subscriber.answer = lambda _number, _request: 500
    status, out, _ = await ringback.run("webhook", "test", webhook["id"])
    assert (status, "500" in out) == (1, True)


async def test_a_secret_is_rotated_and_printed_once(world: World) -> None:
    ringback, webhook = Ringback(world), await world.webhook()
    rotated = await ringback.data("webhook", "rotate", webhook["id"], "--overlap", "1h")
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != webhook["secret"]
    await ringback.data("webhook", "test", webhook["id"])
    assert len(world.subscriber.received[-1].headers["webhook-signature"].split()) == 2
    status, _, err = await ringback.run("webhook", "rotate", webhook["id"], "--overlap", "soon")
    assert (status, "such as" in err) == (2, True)
