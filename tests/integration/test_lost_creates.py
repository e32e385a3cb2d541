"""A create whose answer was lost is found in the history of a provider that filters it by families of models."""

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
from tests.fakes.world import FAST_POLLING, in_process

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
    """Makes a task of every create, answers 502, and lists it as PiAPI does: under `data.data`, by family."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.tells = True
        """Whether its history has any tasks."""

    async def __call__(self, exchange: Exchange) -> None:
        call = exchange.call
        if call.path == "/api/open/tasks/histories":
            await fixed(200, self._history(call.query))(exchange)
        elif call.method == "POST":
            self._make(orjson.loads(call.body))
            await fixed(502, b"<html>bad gateway</html>", "text/html")(exchange)
        else:
            task = next(each for each in self.made if call.path.endswith(each["task_id"]))
            output = {"image_url": "https://x.example/a.png"}
            await fixed(200, {"code": 200, "data": {**task, "status": "completed", "output": output}})(exchange)

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
