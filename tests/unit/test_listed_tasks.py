"""What a provider's list has of the creates that are searched for, whatever else is in it."""

from datetime import UTC, datetime
from threading import current_thread, main_thread
from typing import Any, cast

import pytest

from models import TaskStatus
from receiver.domain.lost_creates import request_digest
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import MalformedUpdate, Provider
from receiver.tracking.listed_tasks import ListedTasks

UID = "0199a1b2-0000-7000-8000-000000000001"
URL = f"https://r.example.com/hooks/piapi/{UID}"
ROWS = {UID: {"task_type": "txt2img", "submitted_at": datetime(2026, 1, 1, tzinfo=UTC)}}
REQUESTS = {UID: request_digest("flux", "txt2img", {"prompt": "a cat"})}


class Lists:
    """A provider whose items are updates already, errors, or an exception to be raised."""

    name = "lists"

    def __init__(self) -> None:
        self.threads: set[bool] = set()
        """Whether items were read in the main thread."""

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        self.threads.add(current_thread() is main_thread())
        if "raises" in task:
            raise task["raises"]
        return ProviderUpdate(source=Source.POLL, status=TaskStatus.PENDING, **task)


async def listed(*items: dict[str, Any]) -> ListedTasks:
    found = ListedTasks(cast(Provider, Lists()), "flux", ROWS, REQUESTS)
    await found.read([item for item in items if found.wants(item)])
    return found


def entry(**fields: Any) -> dict[str, Any]:
    return {"provider_task_id": "p", "model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}, **fields}


@pytest.mark.parametrize(("url", "attempt"), [(URL, 1), (f"{URL}?attempt=3", 3)])
async def test_a_webhook_url_names_the_task_and_the_attempt(url: str, attempt: int) -> None:
    found = await listed(entry(config={"webhook_config": {"endpoint": url}}))
    assert found.named[UID][attempt].provider_task_id == "p"
    assert found.unnamed == []


@pytest.mark.parametrize(
    "item",
    [
        entry(config={"webhook_config": {"endpoint": URL[:-1] + "2"}}),
        entry(provider_task_id=None),
        entry(model="other"),
        entry(task_type="img2img"),
        entry(input={"prompt": "a dog"}),
        entry(input={1: object()}),
    ],
)
async def test_another_task_is_not_wanted(item: dict[str, Any]) -> None:
    found = await listed(item)
    assert (found.named, found.unnamed, found.is_unreadable) == ({}, [], False)


@pytest.mark.parametrize("fields", [{}, {"model": ""}, {"task_type": None}, {"config": {"webhook_config": {}}}])
async def test_without_a_webhook_url_the_request_tells(fields: dict[str, Any]) -> None:
    ((request, update),) = (await listed(entry(**fields))).unnamed
    assert (request, update.provider_task_id) == (REQUESTS[UID], "p")


async def test_an_entry_that_raises_an_exception_hides_no_other_but_the_list_proves_nothing() -> None:
    found = await listed({"raises": AttributeError("odd")}, entry())
    assert (len(found.unnamed), found.is_unreadable) == (1, True)
    assert not (await listed({"raises": MalformedUpdate("no task")}, entry())).is_unreadable


async def test_the_items_that_are_wanted_are_read_apart_from_the_event_loop() -> None:
    lists = Lists()
    found = ListedTasks(cast(Provider, lists), "flux", ROWS, REQUESTS)
    await found.read([entry()])
    assert (lists.threads, len(found.unnamed)) == ({False}, 1)
