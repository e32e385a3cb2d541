"""Whatever form the provider writes its JSON in, the task ends as the provider says: by webhook and by polling."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from receiver.sandbox.script import BodyForm
from tests.fakes.world import FAST_POLLING, World, in_process


@pytest.fixture
async def polling(tmp_path: Path) -> AsyncIterator[World]:
    async with in_process(tmp_path, **FAST_POLLING) as world:
        yield world


@pytest.mark.parametrize("webhook", ["sent", "lost"])
async def test_a_task_ends_whatever_form_the_provider_writes_in(polling: World, webhook: str) -> None:
    forms: tuple[str, ...] = get_args(BodyForm)
    tasks = {form: await polling.created({"body": form, "webhook": webhook}) for form in forms}
    ends = {form: await polling.ended(task_id) for form, task_id in tasks.items()}
    assert {form: task["status"] for form, task in ends.items()} == dict.fromkeys(forms, "completed")
    assert all(task["output"]["image_url"].endswith(".png") for task in ends.values())


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("submit", ["bad_gateway", "cut"])
async def test_a_lost_create_is_found_beside_an_odd_task_in_the_history(polling: World, submit: str) -> None:
    for form in ("surrogate", "nan", "bad_byte"):
        await polling.created({"body": form, "outcome": "never"})
    lost = (await polling.create({"submit": submit, "webhook": "lost"})).json()["data"]["task_id"]
    assert (await polling.ended(lost))["status"] == "completed"


async def test_an_output_that_comes_after_the_end_is_told(world: World) -> None:
    await world.webhook(event_types=["task.completed"])
    task_id = await world.created({"outcome": "output_later"})
    await world.subscriber.until(lambda _: [each for each in world.subscriber.of(task_id) if b".png" in each.body])
    first, second = (each.json["data"] for each in world.subscriber.of(task_id))
    assert not (first["output"] or {}).get("image_url")
    assert second["output"]["image_url"].endswith(".png")
    assert (await world.task(task_id))["output"]["image_url"] == second["output"]["image_url"]
