"""The event stream: each event once and in order, through restarts and reconnections."""

import asyncio
from collections.abc import Mapping
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from receiver.api import event_stream
from receiver.storage.database import Database
from tests.fakes.reader import EVENT_STREAM, Reader, numbers, reading
from tests.fakes.rows import change, select
from tests.fakes.world import FAST_POLLING, World, as_told, in_process, in_processes

OTHER = {"model": "kling", "task_type": "video_generation"}
BAD_QUERIES = {
    "event_types=task.done": "event_types",
    "event_types=,": "event_types",
    "event_types=ping": "event_types",
    "event_types[task]=x": "event_types",
    "run_id=no-such-run": "run_id",
    "limit=0": "limit",
    "colour=red": "colour",
}
TASK_EVENTS = ("task.created", "task.submitted", "task.updated", "task.completed")


async def make(world: World, count: int, **fields: Any) -> list[str]:
    """Create tasks concurrently and wait until all have ended."""
    task_ids = await asyncio.gather(*(world.created(**fields) for _ in range(count)))
    await asyncio.gather(*(world.ended(task_id) for task_id in task_ids))
    return list(task_ids)


def on_disk(world: World, after: int = 0) -> list[int]:
    """Return the sequence number of every stored event after a position."""
    return [row["id"] for row in select(world, "SELECT id FROM event WHERE id > ? ORDER BY id", after)]


async def read_all(reader: Reader, world: World, after: int = 0) -> list[int]:
    """Read up to the newest event; return the sequence numbers that were read."""
    newest = on_disk(world)[-1]
    return numbers(await reader.until(lambda seen: seen and seen[-1].sequence >= newest))


async def test_each_event_is_read_once_and_in_order_while_more_are_written(world: World) -> None:
    await make(world, 3)
    before = on_disk(world)[-1]
    async with reading(world) as first, reading(world) as second, reading(world, 0) as all_of_them:
        await make(world, 30)
        assert await read_all(first, world) == on_disk(world, after=before)
        assert await read_all(second, world) == on_disk(world, after=before)
        assert await read_all(all_of_them, world) == on_disk(world)


async def test_an_event_is_the_same_as_in_its_delivery(world: World) -> None:
    webhook = await world.webhook(event_types=["task.*"])
    async with reading(world) as reader:
        (task_id,) = await make(world, 1, input={"prompt": "two\u2028lines\r\nand \U0001f408"})
        seen = await reader.until(lambda seen: seen and seen[-1].event == "task.completed")
        await world.subscriber.until(lambda received: len({each.event_id for each in received}) == len(seen))
    delivered = {
        received.event_id: standardwebhooks.Webhook(webhook["secret"]).verify(received.body, received.headers)
        for received in world.subscriber.received
    }
    for each in seen:
        assert (each.data["object"], each.data["task_id"], each.data["run_id"]) == ("event", task_id, None)
        assert each.event == each.data["type"]
        assert {name: each.data[name] for name in ("type", "timestamp", "data")} == delivered[each.data["id"]]
    assert seen[-1].data["data"] == as_told(await world.task(task_id))


async def test_headers_keep_proxies_from_buffering_it(world: World) -> None:
    async with reading(world) as reader:
        assert reader.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reader.answer.headers["cache-control"] == "no-store"
        assert reader.answer.headers["x-accel-buffering"] == "no"
        assert reader.retry == 2000
    head = await world.api.head("/api/v1/events", headers=EVENT_STREAM)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_a_reader_that_reconnects_again_and_again_reads_each_event_once(world: World) -> None:
    async with reading(world) as reader:
        after = reader.last_id  # known before anything happened
    making = asyncio.create_task(make(world, 20))
    found: list[int] = []
    while not making.done() or found[-1:] != on_disk(world)[-1:]:
        async with reading(world, after) as reader:
            found += numbers(await reader.until(lambda seen: len(seen) >= 1))
            after = reader.last_id
    await making
    assert found == on_disk(world)


async def test_readers_continue_from_the_database_where_the_feed_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.events.feed.MOST_EVENTS", 2)
    monkeypatch.setattr("receiver.events.stream._SPAN", 3)
    monkeypatch.setattr("receiver.events.stream.MOST_AT_ONCE", 2)
    async with in_process(tmp_path) as world, reading(world) as one, reading(world, model=OTHER["model"]) as other:
        await asyncio.gather(make(world, 15), make(world, 5, **OTHER))
        assert await read_all(one, world) == on_disk(world)
        mine = "SELECT e.id FROM event e JOIN task t ON t.id = e.task_id WHERE t.model = ? ORDER BY e.id"
        wanted = [row["id"] for row in select(world, mine, OTHER["model"])]
        assert numbers(await other.until(lambda seen: len(seen) >= len(wanted))) == wanted


async def test_no_event_is_lost_or_repeated_by_a_kill_and_a_restart(tmp_path: Path) -> None:
    async with in_processes(tmp_path, **FAST_POLLING) as world:
        async with reading(world) as reader:
            await make(world, 5)
            begun = await asyncio.gather(*(world.created() for _ in range(5)))
            found = numbers(await reader.until(lambda seen: len(seen) >= 12))
            after = reader.last_id
            await world.kill()
        await world.start()
        async with reading(world, after) as reader:
            await asyncio.gather(*(world.ended(task_id) for task_id in begun))
            found += await read_all(reader, world)
        assert found == on_disk(world)


@pytest.mark.parametrize(
    ("query", "types"),
    [
        ({"event_types": "task.completed"}, ["task.completed"] * 2),
        ({"event_types": "task.created, job.completed"}, ["task.created", "task.completed"] * 2),
        ({"event_types": ["task.created", "task.submitted"]}, ["task.created", "task.submitted"] * 2),
        ({"event_types": "task.*", "model": "kling"}, TASK_EVENTS),
        ({"model": ["kling", "no-such-model"], "event_types": "task.completed"}, ["task.completed"]),
        ({"task_type": "video_generation"}, TASK_EVENTS),
        ({"task_type": "video_generation", "model": "Qubico/flux1-schnell"}, []),
        ({"event_types": "webhook.disabled"}, []),
    ],
)
async def test_a_filter_lets_through_only_what_it_names(
    world: World, query: Mapping[str, Any], types: list[str]
) -> None:
    async with reading(world, **query) as live:
        await make(world, 1)
        await make(world, 1, **OTHER)
        async with reading(world, 0, **query) as late:
            for reader in (live, late):
                seen = await reader.until(lambda seen: len(seen) >= len(types))
                assert sorted(each.event for each in seen) == sorted(types)
        page = (await world.api.get("/api/v1/events", params=query)).json()["data"]["data"]
        assert sorted(event["type"] for event in page) == sorted(types)


async def test_one_task_is_followed_by_either_of_its_ids(world: World) -> None:
    task_id = await world.created({"pending_seconds": 60.0})
    provider_id = (await world.task(task_id))["provider_task_id"]
    async with reading(world, task_id=task_id) as one, reading(world, task_id=provider_id) as other:
        await make(world, 3)
        await world.api.delete(f"/api/v1/task/{task_id}")
        for reader in (one, other):
            seen = await reader.until(lambda seen: any(each.event == "task.cancelled" for each in seen))
            assert {each.task_id for each in seen} == {task_id}


async def test_an_idle_stream_is_kept_alive_and_its_position_advances(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    async with reading(world, model="no-such-model") as reader:
        await make(world, 2)
        newest = str(on_disk(world)[-1])
        while reader.last_id != newest:
            reader.comments.clear()
            await reader.comment("keep-alive")
        assert not reader.seen


async def test_a_stream_whose_filter_hides_what_happens_is_kept_alive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.5)

    async def go_on() -> None:
        while True:
            await world.created()

    async with reading(world, model="no-such-model") as reader:
        busy = [asyncio.create_task(go_on()) for _ in range(4)]
        await reader.comment("keep-alive", seconds=5)
        for each in busy:
            each.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert not reader.seen


async def test_a_stream_is_kept_alive_while_its_filter_hides_all_that_it_reads_from_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.events.feed.MOST_EVENTS", 2)
    monkeypatch.setattr("receiver.events.stream._SPAN", 3)
    # At each of the first looks a comment is due; then no more, or comments without end would be written and read.
    looks = islice(count(step=event_stream.KEEP_ALIVE_SECONDS), 60)
    clock = chain(looks, repeat(60 * event_stream.KEEP_ALIVE_SECONDS))
    monkeypatch.setattr(event_stream, "monotonic", lambda: next(clock))
    async with in_process(tmp_path) as world:
        await make(world, 3)
        newest = on_disk(world)[-1]
        positions = [0]
        async with reading(world, 0, model="no-such-model") as reader:
            while positions[-1] != newest:
                reader.comments.clear()
                await reader.comment("keep-alive")
                positions.append(int(reader.last_id or 0))
        assert positions[:3] == [0, 3, 6]


async def test_a_revoked_key_ends_its_stream(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    made = (await world.api.post("/api/v1/keys", json={"name": "a reader", "scope": "read"})).json()["data"]
    async with reading(world, key=made["key"]) as reader:
        assert (await world.api.delete(f"/api/v1/keys/{made['id']}")).status_code == 200
        await reader.end()


@pytest.mark.parametrize("headers", [{}, EVENT_STREAM], ids=["json", "stream"])
async def test_a_wrong_query_parameter_is_refused_by_name(world: World, headers: dict[str, str]) -> None:
    for query, param in BAD_QUERIES.items():
        answer = await world.api.get(f"/api/v1/events?{query}", headers=headers)
        assert answer.status_code == 400, query
        assert answer.json()["error"]["param"] == param
        assert answer.json()["error"]["code"] == "invalid_query_params"


async def test_a_stream_needs_a_key(world: World) -> None:
    answer = await world.api.get("/api/v1/events", headers={**EVENT_STREAM, "x-api-key": "no-such-key"})
    assert answer.status_code == 401


@pytest.mark.parametrize("given", ["1", "nonsense", "-1", "99999999999999999999999", "٣", "1.0"])
async def test_an_id_that_cannot_be_resumed_from_is_refused_in_json_and_a_fresh_start_in_a_stream(
    world: World, given: str
) -> None:
    await make(world, 2)
    stored = on_disk(world)
    change(world, "DELETE FROM event WHERE id <= 3")  # as retention would
    change(world, "UPDATE organization SET purged_event = 3")
    answer = await world.api.get("/api/v1/events", params={"after": given})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "event_id_unknown"
    assert answer.json()["error"]["oldest_id"] == "4"
    async with reading(world, after=given) as reader:
        assert reader.comments[0].endswith("the stream starts with new events")
        (reset,) = reader.seen
        assert (reset.event, reset.data["oldest_id"], reset.data["newest_id"]) == ("reset", "4", str(stored[-1]))
        assert reader.last_id == str(stored[-1])
        reader.seen.clear()
        await make(world, 1)
        assert await read_all(reader, world) == on_disk(world, after=stored[-1])
    oldest = (await world.api.get("/api/v1/events", params={"after": "3"})).json()["data"]["data"]
    assert [event["sequence"] for event in oldest] == on_disk(world)


async def test_numbers_that_were_rolled_back_before_the_first_event_are_no_loss(world: World) -> None:
    await make(world, 2)
    change(world, "DELETE FROM event WHERE id <= 2")  # as if they had never been committed
    async with reading(world, after="0") as reader:
        assert await read_all(reader, world) == on_disk(world)
    page = (await world.api.get("/api/v1/events", params={"after": "0"})).json()["data"]["data"]
    assert [event["sequence"] for event in page] == on_disk(world)


async def test_pages_are_newest_first_and_after_an_id_oldest_first(world: World) -> None:
    await make(world, 4)
    stored = on_disk(world)
    assert await paged(world) == stored[::-1]
    assert await paged(world, after="5") == [number for number in stored if number > 5]
    by_header = await world.api.get("/api/v1/events", headers={"last-event-id": str(stored[-2])})
    assert [event["sequence"] for event in by_header.json()["data"]["data"]] == stored[-1:]


async def paged(world: World, **query: str) -> list[int]:
    """Return the numbers of a whole list, page by page."""
    found: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await world.api.get("/api/v1/events", params={"limit": 3, "cursor": cursor, **query})
        page = answer.json()["data"]
        found += [event["sequence"] for event in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        cursor = page["next_cursor"]
    return found


async def test_idle_readers_cost_no_query_and_the_others_share_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = Database.read

    async def count(self: Database, statement: Any, *parameters: Any) -> Any:
        asked.append(str(statement))
        return await read(self, statement, *parameters)

    task_id = await world.created({"outcome": "never", "webhook": "lost"})
    async with asyncio.TaskGroup() as group, reading(world) as busy:
        ready = [asyncio.Event() for _ in range(40)]
        stop = asyncio.Event()

        async def wait(number: int) -> None:
            query = {"task_id": task_id} if number % 2 else {}
            async with reading(world, **query):
                ready[number].set()
                await stop.wait()

        for number in range(40):
            group.create_task(wait(number))
        await asyncio.gather(*(each.wait() for each in ready))
        monkeypatch.setattr(Database, "read", count)
        (mine,) = await make(world, 1)
        await busy.until(lambda seen: any(each.event == "task.completed" for each in seen))
        of_streams = [statement for statement in asked if "event.id IN" in statement or "event.id >" in statement]
        events = [*await world.events(mine), *await world.events(task_id)]  # some of the other's may be read late
        assert 0 < len(of_streams) <= len(events)
        stop.set()
