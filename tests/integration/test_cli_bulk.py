"""`ringback task create --bulk` and `task retry` against a real service."""

import pytest

from receiver.domain.ids import new_id
from tests.fakes.command import Ringback
from tests.fakes.world import World

pytestmark = pytest.mark.sqlite_only("the commands use HTTP alone; other tests cover the database")

LINE = '{"model": "kling", "task_type": "video_generation", "input": {"prompt": "a cat"}, "metadata": {"n": %d}}'


async def test_each_line_of_a_file_becomes_a_task(world: World) -> None:
    ringback = Ringback(world)
    (world.folder / "tasks.jsonl").write_text("\n".join([LINE % 1, "", '{"model": "kling"}', LINE % 2]))
    status, out, err = await ringback.run("task", "create", "--bulk", "tasks.jsonl")
    assert status == 1
    assert err.splitlines()[0].startswith("ringback: line 3: task_type: ")
    assert "1 of 3 lines were refused" in err
    tasks = [await world.ended(task_id) for task_id in out.split()]
    assert [(task["status"], task["metadata"]["n"]) for task in tasks] == [("completed", 1), ("completed", 2)]


async def test_lines_are_read_from_standard_input_too(world: World) -> None:
    printed = await Ringback(world).data("task", "create", "--bulk", "-", stdin=f"{LINE % 1}\n{LINE % 2}\n")
    assert [line["line"] for line in printed["data"]] == [1, 2]
    assert (await world.task(printed["data"][1]["task_id"]))["metadata"] == {"n": 2}


@pytest.mark.parametrize(
    "arguments",
    [("--bulk", "x", "--model", "kling"), ("--bulk", "not-there.jsonl"), ("--model", "kling"), ()],
    ids=["two ways", "no file", "no task type", "nothing"],
)
async def test_wrong_usage_exits_2(world: World, arguments: tuple[str, ...]) -> None:
    status, out, err = await Ringback(world).run("task", "create", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)


async def test_a_task_that_failed_is_retried_and_waited_for(world: World) -> None:
    ringback = Ringback(world)
    task_id = await world.created({"fail_attempts": 1, "key": new_id()})
    assert (await world.ended(task_id))["status"] == "failed"
    done = await ringback.data("task", "retry", task_id, "--wait")
    assert (done["task_id"], done["status"]) == (task_id, "completed")
    assert (await ringback.run("task", "retry", task_id))[0] == 2
