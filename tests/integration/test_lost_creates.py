"""A create whose answer was lost is searched for in the provider's list until that proves something, and after it.

The provider filters its list by families of models.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest

from receiver.clock import utc_now
from receiver.domain.model_families import history_name
from tests.fakes.forward_provider import Exchange, ForwardProvider, fixed, forward_provider
from tests.fakes.inbound import notice, post
from tests.fakes.rows import RECEIPTS, eventually
from tests.fakes.world import FAST_POLLING, World, in_process

pytestmark = pytest.mark.usefixtures("quick_search")

ODD: list[Any] = [
    None,
    7,
    "none",
    [],
    {},
    {"task_id": None},
    {"task_id": "odd", "status": []},
    {"meta": 5, "input": "x"},
]


class LosesAnswers:
    """Makes a task of every create, answers `status`, and lists it as PiAPI does: under `data.data`, by family."""

    def __init__(self, status: int = 502) -> None:
        self.made: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.status = status
        self.tells = True
        """Whether its history has any tasks."""
        self.is_down = False
        """Whether its history, and every poll, is answered with 502."""
        self.completes = True
        """Whether its tasks are completed when they are polled; they are processing otherwise."""
        self.polls = 0
        self._called = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.call
        self._called.set()
        if call.path == "/api/open/tasks/histories":
            answer = self._history(call.query)
            await fixed(502 if self.is_down else 200, answer)(exchange)
        elif call.method == "POST":
            self._make(orjson.loads(call.body))
            await fixed(self.status, {"code": self.status, "message": "it broke"})(exchange)
        elif self.is_down:
            await fixed(502, b"")(exchange)
        else:
            self.polls += 1
            task = next(each for each in self.made if call.path.endswith(each["task_id"]))
            await fixed(200, {"code": 200, "data": {**task, **self._state()}})(exchange)

    def _state(self) -> dict[str, Any]:
        if not self.completes:
            return {"status": "processing"}
        return {"status": "completed", "output": {"image_url": "https://x.example/a.png"}}

    async def until_asked(self, calls: int) -> None:
        """Wait until its history was asked for this many times more. Raises TimeoutError."""
        wanted = len(self.asked) + calls
        async with asyncio.timeout(20):
            while len(self.asked) < wanted:
                self._called.clear()
                await self._called.wait()

    def _make(self, wanted: dict[str, Any]) -> None:
        meta = {"created_at": utc_now().isoformat()}
        self.made.append({**wanted, "task_id": f"theirs-{len(self.made)}", "status": "pending", "meta": meta})

    def _history(self, query: str) -> dict[str, Any]:
        (family,) = parse_qs(query).get("model", [""])
        self.asked.append(family)
        found = [task for task in self.made if self.tells and family in ("", history_name(task["model"]))]
        items = [*ODD, *reversed(found), *ODD]
        return {"code": 200, "data": {"data": items, "page": 1, "size": 100, "total": len(items)}, "message": "success"}


@pytest.fixture
async def provider() -> AsyncIterator[ForwardProvider]:
    async with forward_provider() as provider:
        yield provider


MODELS = ("Qubico/flux1-schnell", "Qubico/flux1-dev", "midjourney", "music-s", "acme/painter")


@pytest.mark.parametrize("public", [True, False])
async def test_lost_creates_are_found_by_their_families_beside_odd_items(
    tmp_path: Path, provider: ForwardProvider, public: bool
) -> None:
    provider.answer = losing = LosesAnswers()
    async with in_process(tmp_path, piapi_base_url=provider.url, public=public, **FAST_POLLING) as world:
        created = await asyncio.gather(*(world.created(model=model) for model in MODELS))
        ended = await asyncio.gather(*map(world.ended, created))
    assert [task["status"] for task in ended] == ["completed"] * len(MODELS)
    by_id = {task["task_id"]: task["model"] for task in losing.made}
    assert tuple(by_id[task["provider_task_id"]] for task in ended) == MODELS
    assert len(losing.made) == len(MODELS)  # none was paid for twice
    assert set(losing.asked) == {history_name(model) or "" for model in MODELS}


async def test_a_lost_create_that_somebody_adopted_first_ends(tmp_path: Path, provider: ForwardProvider) -> None:
    provider.answer = losing = LosesAnswers()
    losing.tells = False
    async with in_process(tmp_path, piapi_base_url=provider.url, public=True, **FAST_POLLING) as world:
        created = await world.created(model="midjourney")
        theirs = losing.made[0]["task_id"]
        adopted = await world.api.post("/api/v1/tasks/adopt", json={"provider": "piapi", "provider_task_id": theirs})
        losing.tells = True
        task = await world.ended(created)
        assert (await world.ended(adopted.json()["data"]["task_id"]))["status"] == "completed"
    assert (task["status"], task["error"]["code"]) == ("failed", "provider_task_taken")
    assert theirs in task["error"]["message"]


SHORT: dict[str, Any] = {**FAST_POLLING, "submission_unknown_seconds": "0.2", "failed_create_seconds": "0.2"}


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at tasks that Ringback ended again at once, not after 30 s."""
    monkeypatch.setattr("receiver.domain.schedules.LATER_LOOKS", tuple(0.3 * n for n in range(1, 60)))
    monkeypatch.setattr("receiver.domain.schedules._UNANSWERED_LOOKS", (0.1, 0.2))


async def ends(world: World, task_id: str) -> list[dict[str, Any]]:
    return [each for each in await world.events(task_id) if each["type"] in ("task.completed", "task.failed")]


async def until(world: World, status: str) -> dict[str, Any]:
    """Wait until the only task has this status; return it. Raises TimeoutError."""
    (row,) = await eventually(world, "SELECT uid, status FROM task", lambda rows: rows[0]["status"] == status, 20)
    return await world.task(str(row["uid"]))


async def test_while_the_provider_does_not_answer_a_lost_create_is_not_given_up(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers()
    losing.is_down = True
    async with in_process(tmp_path, piapi_base_url=provider.url, **SHORT) as world:
        task_id = await world.created()
        await losing.until_asked(5)  # the last of them long after the time in which an answer could be expected
        task = await world.task(task_id)
        assert (task["status"], task["submission"]) == ("queued", "unknown")
        losing.is_down = False
        assert (await world.ended(task_id))["status"] == "completed"
        assert [each["type"] for each in await ends(world, task_id)] == ["task.completed"]


@pytest.mark.parametrize("public", [True, False])
async def test_a_500_after_the_task_was_made_is_paid_for_once(
    tmp_path: Path, provider: ForwardProvider, public: bool
) -> None:
    provider.answer = losing = LosesAnswers(500)
    async with in_process(tmp_path, piapi_base_url=provider.url, public=public, **SHORT) as world:
        task_id = await world.created(model="midjourney", retry={"max_attempts": 3, "backoff_seconds": 0})
        task = await world.ended(task_id)
    assert (task["status"], task["attempt"], len(losing.made)) == ("completed", 1, 1)


async def test_after_a_500_the_attempt_fails_when_two_complete_looks_do_not_find_it(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers(500)
    losing.tells = False
    losing.is_down = True
    async with in_process(tmp_path, piapi_base_url=provider.url, **SHORT) as world:
        task_id = await world.created(model="midjourney")
        await losing.until_asked(4)
        task = await world.task(task_id)
        assert (task["status"], task["error"]["code"]) == ("queued", "create_call_failed")
        losing.is_down = False
        looks = len(losing.asked)
        task = await world.ended(task_id)
        assert (task["error"]["code"], task["error"]["message"]) == (500, "it broke")
        assert len(losing.asked) >= looks + 2


@pytest.mark.usefixtures("quick_looks")
async def test_a_lost_create_that_is_found_after_its_end_heals_and_says_that_it_is_charged(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers()
    losing.tells = losing.completes = False
    async with in_process(tmp_path, piapi_base_url=provider.url, **SHORT) as world:
        task_id = await world.created(model="midjourney")
        assert (await world.ended(task_id))["error"]["code"] == "submission_unknown"
        losing.tells = True
        rows = await eventually(world, RECEIPTS, lambda rows: rows)
        assert (rows[0]["task_uid"], rows[0]["provider_task_id"]) == (task_id, "theirs-0")
        assert "charge" in rows[0]["message"]
        task = await world.task(task_id)  # it runs there: the failure was told, but the id is kept
        assert (task["status"], task["provider_task_id"]) == ("failed", "theirs-0")
        losing.completes = True
        assert (await until(world, "completed"))["output"]["image_url"]
        failed, completed = await ends(world, task_id)
        assert completed["data"]["corrects"] == failed["id"]
        assert "charges for it" in completed["data"]["note"]
    assert len(losing.made) == 1


@pytest.mark.usefixtures("quick_looks")
async def test_a_task_that_timed_out_heals_when_the_provider_answers_again(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers()
    losing.completes = False
    async with in_process(tmp_path, piapi_base_url=provider.url, task_timeout_seconds="0.6", **SHORT) as world:
        task_id = await world.created(model="midjourney")
        await until(world, "processing")
        await eventually(world, "SELECT 1", lambda _: losing.polls >= 4)  # answered without a change: no silence
        assert (await world.task(task_id))["status"] == "processing"
        losing.is_down = True
        assert (await world.ended(task_id))["error"]["code"] == "timed_out"
        losing.is_down, losing.completes = False, True
        await until(world, "completed")
        assert "charges for it" in (await ends(world, task_id))[1]["data"]["note"]


@pytest.mark.parametrize("status", [500, 502])
async def test_a_retry_looks_first_whether_the_provider_has_the_lost_create(
    tmp_path: Path, provider: ForwardProvider, status: int
) -> None:
    provider.answer = losing = LosesAnswers(status)
    losing.tells = losing.completes = False
    async with in_process(tmp_path, piapi_base_url=provider.url, **SHORT) as world:
        task_id = await world.created(model="midjourney")
        await world.ended(task_id)
        losing.tells = True
        answer = await world.api.post(f"/api/v1/tasks/{task_id}/retry")
        assert (answer.status_code, len(losing.made)) == (409, 1)
        assert (await world.task(task_id))["provider_task_id"] == "theirs-0"


async def test_a_retry_of_a_task_that_timed_out_finds_first_that_it_has_completed(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers()
    losing.completes = False
    async with in_process(tmp_path, piapi_base_url=provider.url, task_timeout_seconds="0.6", **SHORT) as world:
        task_id = await world.created(model="midjourney")
        await until(world, "processing")
        losing.is_down = True
        assert (await world.ended(task_id))["error"]["code"] == "timed_out"
        losing.is_down, losing.completes = False, True
        answer = await world.api.post(f"/api/v1/tasks/{task_id}/retry")
        assert (answer.status_code, "completed" in answer.text, len(losing.made)) == (409, True, 1)


async def test_a_retry_of_a_run_looks_first_whether_the_provider_has_the_lost_create_of_a_step(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers()
    losing.tells = losing.completes = False
    step = {"id": "a", "action": "midjourney:imagine", "input": {"prompt": "a cat"}, "retry": {"max_attempts": 1}}
    async with in_process(tmp_path, piapi_base_url=provider.url, **SHORT) as world:
        run_id = (await world.api.post("/api/v1/runs", json={"steps": [step]})).json()["data"]["run_id"]
        await world.api.get(f"/api/v1/runs/{run_id}", params={"wait_for_completion": "true"})
        losing.tells = True
        answer = await world.api.post(f"/api/v1/runs/{run_id}/retry")
        assert (answer.status_code, len(losing.made)) == (409, 1)
        run = (await world.api.post(f"/api/v1/runs/{run_id}/retry")).json()["data"]  # repeated, it is obeyed
        assert run["status"] == "in_progress"


@pytest.mark.usefixtures("quick_looks")
async def test_a_task_that_failed_after_a_500_heals_when_the_list_has_it_later(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers(500)
    losing.tells = False
    async with in_process(tmp_path, piapi_base_url=provider.url, **SHORT) as world:
        task_id = await world.created(model="midjourney")
        assert (await world.ended(task_id))["error"]["code"] == 500
        losing.tells = True
        await until(world, "completed")
        assert "charges for it" in (await ends(world, task_id))[1]["data"]["note"]
    assert len(losing.made) == 1


async def test_a_late_webhook_of_an_attempt_that_was_taken_for_not_made_names_it_and_its_charge(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers(500)
    losing.tells = losing.completes = False
    retry = {"max_attempts": 2, "backoff_seconds": 0}
    async with in_process(tmp_path, piapi_base_url=provider.url, public=True, **SHORT) as world:
        task_id = await world.created(model="midjourney", retry=retry)
        await eventually(world, "SELECT 1", lambda _: len(losing.made) == 2)
        late = notice("theirs-0", "completed", output={"image_url": "https://x.example/a.png"})
        assert (await post(world, task_id, json=late)).status_code == 200
        (receipt,) = await eventually(world, RECEIPTS, lambda rows: rows)
        assert receipt["reason"] == "superseded"
        assert "charges for it" in receipt["message"]
        assert (await world.task(task_id))["attempts"][0]["provider_task_id"] == "theirs-0"


async def test_an_attempt_that_is_found_after_another_one_began_is_a_receipt_that_names_it(
    tmp_path: Path, provider: ForwardProvider
) -> None:
    provider.answer = losing = LosesAnswers()
    losing.tells = False
    async with in_process(tmp_path, piapi_base_url=provider.url, **SHORT) as world:
        task_id = await world.created(model="midjourney")
        await world.ended(task_id)
        assert (await world.api.post(f"/api/v1/tasks/{task_id}/retry")).status_code == 200
        await losing.until_asked(1)
        losing.tells = True
        task = await world.ended(task_id)
        assert (task["status"], task["attempt"], task["provider_task_id"]) == ("completed", 2, "theirs-1")
        (receipt,) = await eventually(world, RECEIPTS, lambda rows: rows)
    assert (receipt["reason"], receipt["provider_task_id"]) == ("superseded", "theirs-0")
    assert "paid for" in receipt["message"]
    assert task["attempts"][0]["provider_task_id"] == "theirs-0"
