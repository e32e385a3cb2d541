"""`ringback task cancel|retry|refresh --all-matching` and `explain` against a real service."""

import pytest

from tests.fakes.command import Ringback
from tests.fakes.pipeline import FAILS, WAITING
from tests.fakes.rows import eventually
from tests.fakes.world import World

pytestmark = pytest.mark.sqlite_only("the commands use HTTP alone; other tests cover the database")

ALL = ("--all-matching", "--metadata", "order=7")


async def test_all_that_match_are_cancelled_after_the_number_was_told(world: World) -> None:
    ringback = Ringback(world)
    for order in (7, 7, 8):
        await world.created(WAITING, metadata={"order": order})
    await eventually(world, "SELECT 1 FROM task WHERE status = 'pending'", lambda rows: len(rows) == 3)
    assert await ringback.run("task", "cancel", *ALL, "--dry-run") == (0, "2 tasks can be cancelled\n", "")
    status, out, err = await ringback.run("task", "cancel", *ALL)
    assert (status, out, "2 tasks would be cancelled" in err, "--yes" in err) == (2, "", True, True)
    done = await ringback.data("task", "cancel", *ALL, "--yes")
    assert (done["object"], done["status"], done["done"], done["failed"]) == ("bulk_action", "done", 2, 0)
    status, out, _ = await ringback.run("task", "retry", "--all-matching", "--status", "cancelled", "--yes")
    assert (status, out.split()[:2]) == (0, ["bulk", "action"])
    await eventually(world, "SELECT 1 FROM task WHERE attempt = 2", lambda rows: len(rows) == 2)


async def test_one_task_or_all_that_match_are_refreshed(world: World) -> None:
    ringback = Ringback(world)
    task_id = await world.created(WAITING, metadata={"order": 7})
    await eventually(world, "SELECT 1 FROM task WHERE status = 'pending'", lambda rows: rows)
    assert (await ringback.data("task", "refresh", task_id))["task_id"] == task_id
    assert await ringback.run("task", "refresh", *ALL, "--dry-run") == (0, "1 tasks can be refreshed\n", "")
    assert (await ringback.data("task", "refresh", *ALL, "--yes"))["done"] == 1


async def test_an_id_and_a_filter_are_not_mixed(world: World) -> None:
    ringback = Ringback(world)
    for arguments in (("cancel", "x", *ALL), ("retry",), ("cancel", "x", "--model", "m"), ("retry", "x", "--yes")):
        status, out, err = await ringback.run("task", *arguments)
        assert (status, out, "--all-matching" in err) == (2, "", True)


async def test_refused_tasks_are_told_by_their_code_and_the_exit_status(world: World) -> None:
    ringback = Ringback(world)
    await world.created({"outcome": "never"}, metadata={"order": 7})
    await eventually(world, "SELECT 1 FROM task WHERE status = 'processing'", lambda rows: rows)
    status, out, _ = await ringback.run("task", "cancel", *ALL, "--yes")
    assert (status, "1 provider_refused" in out) == (1, True)


async def test_a_task_is_explained_to_a_person(world: World) -> None:
    task_id = await world.created(FAILS)
    task = await world.ended(task_id)
    status, out, _ = await Ringback(world).run("task", "explain", task_id)
    assert (status, task["error"]["message"] in out, "retry" in out) == (0, True, True)
