"""What creates send to PostgreSQL, alone and with other writes, and what they do where something changed meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from models import EventType, SubscriptionKind, TaskStatus
from receiver.domain.updates import Source
from receiver.errors import OutcomeUnknown, StorageUnavailable
from receiver.storage.database import Database
from receiver.storage.optimistic import may_be_optimistic
from receiver.storage.postgresql import connection
from receiver.storage.postgresql.one_statement import MARK
from receiver.storage.tables import subscriptions, tasks
from receiver.storage.transaction import Listener, Transaction
from receiver.tracking.create import Callback, TaskRequest
from tests.fakes.databases import Outside, outside, settings_in
from tests.fakes.held_commits import held_commits
from tests.fakes.sent_statements import cut, statements
from tests.integration.harness import TrackingHarness, arrival, tracking
from tests.storage.optimistic_batches import counted
from tests.storage.rows import new_event, new_settlement, task_row

pytestmark = pytest.mark.postgresql_only("counts round trips")

CALLBACK = Callback("https://a.example", None, "a")


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[TrackingHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield harness


def request(organization_id: int = 1, **fields: Any) -> TaskRequest:
    return TaskRequest(
        organization_id=organization_id, provider="piapi", model="flux", task_type="txt2img", input={"a": 1}, **fields
    )


def answer(uid: str, number: int) -> Any:
    """Return what the create call of a task brought."""
    return arrival(TaskStatus.PENDING, uid, provider_task_id=f"pt-{number}", source=Source.SUBMIT, body=None)


async def is_whole(harness: TrackingHarness) -> None:
    """Look whether each event and each delivery names its own rows, in the order of the events."""
    of_task = {row["id"]: row["uid"] for row in await harness.tasks()}
    events = await harness.events()
    assert {row["task_id"] for row in events} <= of_task.keys()
    created = [row["task_id"] for row in events if row["type"] == EventType.TASK_CREATED]
    assert sorted(created) == sorted(of_task)
    task_of = {row["id"]: row["task_id"] for row in events}
    rows = await harness.deliveries()
    assert all(row["task_id"] == task_of[row["event_id"]] for row in rows)
    handed = {(each.id, each.subscription_id, each.attempt) for each in harness.dispatcher.handed}
    assert handed == {(row["id"], row["subscription_id"], row["attempt"]) for row in rows if row["attempt"]}


async def together(harness: TrackingHarness, *writes: tuple[Any, Any]) -> list[Any]:
    """Write several items in one batch."""
    each = (harness.database.writer.write(handler, item) for handler, item in writes)
    return await asyncio.gather(*each, return_exceptions=True)


async def test_creates_are_one_read_and_one_statement(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_them = await harness.subscribe()
    await harness.subscribe(event_types=[EventType.TASK_COMPLETED])
    given = [request(metadata={"number": number}) for number in range(3)]
    sent = statements(monkeypatch)
    with counted(stored=1):
        made = await together(harness, *((harness.creator.create, each) for each in given))
    monkeypatch.undo()
    assert [query.startswith(MARK) for query in sent] == [False, True]
    rows = await harness.tasks()
    assert [(each.id, each.uid) for each in made] == [(row["id"], row["uid"]) for row in rows]
    assert [row["uid"] for row in rows] == [each.uid for each in given]
    assert [row["metadata"] for row in rows] == [{"number": number} for number in range(3)]
    assert [row["task_id"] for row in await harness.events()] == [row["id"] for row in rows]
    assert await harness.delivered() == [(all_of_them, EventType.TASK_CREATED)] * 3
    await is_whole(harness)


async def test_creates_with_other_writes_are_one_read_and_one_statement(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = await harness.subscribe()
    first, second = await harness.create(), await harness.create()
    key = harness.dispatcher.handed[0].id
    single, bulk = request(), [request(), request()]
    sent = statements(monkeypatch)
    with counted(stored=1):
        made, _, _, in_bulk, settled = await together(
            harness,
            (harness.creator.create, single),
            (harness.applier.apply, answer(first, 1)),
            (harness.applier.apply, answer(second, 2)),
            (harness.creator.create_bulk, bulk),
            (settle, new_settlement(key, subscription)),
        )
    monkeypatch.undo()
    assert [query.startswith(MARK) for query in sent] == [False, True]
    assert settled is True
    rows = {row["uid"]: row for row in await harness.tasks()}
    assert [rows[uid]["provider_task_id"] for uid in (first, second)] == ["pt-1", "pt-2"]
    assert [(each.id, each.uid) for each in (made, *in_bulk)] == [
        (rows[each.uid]["id"], each.uid) for each in (single, *bulk)
    ]
    types = [EventType.TASK_CREATED] * 2 + [EventType.TASK_SUBMITTED] * 2 + [EventType.TASK_CREATED] * 3
    assert await harness.types() == types
    await is_whole(harness)


@may_be_optimistic
async def settle(tx: Transaction, settlements: Sequence[Any]) -> list[Any]:
    return await tx.settle(settlements)


async def test_a_callback_is_found_or_inserted_in_the_same_statement(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Callback("https://b.example", "secret", "b")
    first = await harness.create(CALLBACK)
    sent = statements(monkeypatch)
    with counted(stored=1):
        made = await together(
            harness,
            (harness.creator.create, request(callback=CALLBACK)),
            (harness.creator.create, request(callback=other)),
            (harness.creator.create, request()),
            (harness.creator.create, request(callback=other)),
        )
    monkeypatch.undo()
    assert [query.startswith(MARK) for query in sent] == [False, True]
    rows = await harness.database.read(select(subscriptions).order_by(subscriptions.c.id))
    assert [(row["endpoint_url"], row["secret"], row["event_types"]) for row in rows] == [
        (each.endpoint_url, each.secret, [*each.event_types]) for each in (CALLBACK, other)
    ]
    assert {(row["kind"], row["is_active"], row["ordered"], row["signature"], row["format"]) for row in rows} == {
        (SubscriptionKind.CALLBACK, True, False, "v1", "piapi")
    }
    a, b = (row["id"] for row in rows)
    callbacks = {row["uid"]: row["callback_id"] for row in await harness.tasks()}
    assert [callbacks[uid] for uid in (first, *(each.uid for each in made))] == [a, a, b, None, b]
    # What the task's events lead to is sent there.
    await harness.receive(TaskStatus.COMPLETED, made[1].uid)
    assert await harness.delivered() == [(b, EventType.TASK_COMPLETED)]
    await is_whole(harness)


async def test_a_new_callback_that_is_told_of_the_create_itself_is_written_with_locks(harness: TrackingHarness) -> None:
    callback = Callback("https://a.example", None, "a", event_types=list(EventType))
    with counted(needs_more=1):
        await harness.create(callback)
    with counted(stored=1):
        await harness.create(callback)
    (row,) = await harness.database.read(select(subscriptions.c.id))
    assert await harness.delivered() == [(row["id"], EventType.TASK_CREATED)] * 2
    await is_whole(harness)


async def test_a_callback_that_is_switched_off_gets_nothing(harness: TrackingHarness) -> None:
    callback = Callback("https://a.example", None, "a", event_types=list(EventType))
    await harness.create(callback)
    with outside(harness.url) as server:
        server.execute("UPDATE subscription SET is_active = false")
    with counted(stored=1):
        await harness.create(callback)
    assert len(await harness.tasks()) == 2
    assert len(await harness.deliveries()) == 1


async def _another_inserts_it(server: Any) -> None:
    server.execute(
        "INSERT INTO subscription (uid, organization_id, kind, endpoint_url, format, event_types, ordered, signature, "
        "fingerprint, is_active, created_at, updated_at) "
        "VALUES (gen_random_uuid(), 1, 'callback', 'https://a.example', 'piapi', '[]', false, 'v1', 'a', true, "
        "now(), now())"
    )


async def test_a_callback_that_another_process_inserts_meanwhile_is_used(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = await meanwhile(harness, monkeypatch, _another_inserts_it, request(callback=CALLBACK), request())
    (row,) = await harness.database.read(select(subscriptions.c.id))
    assert [(await harness.task(uid))["callback_id"] for uid in uids] == [row["id"], None]
    await is_whole(harness)


async def _it_is_purged(server: Any) -> None:
    server.execute("DELETE FROM subscription")


async def test_a_callback_that_is_purged_meanwhile_is_inserted_again(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with outside(harness.url) as server:
        await _another_inserts_it(server)
    (before,) = await harness.database.read(select(subscriptions.c.id))
    uids = await meanwhile(harness, monkeypatch, _it_is_purged, request(callback=CALLBACK))
    (row,) = await harness.database.read(select(subscriptions.c.id))
    assert (await harness.task(uids[0]))["callback_id"] == row["id"] != before["id"]
    await is_whole(harness)


async def test_a_webhook_that_is_purged_meanwhile_gets_nothing(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.subscribe()
    await meanwhile(harness, monkeypatch, _it_is_purged, request(), request())
    assert await harness.deliveries() == []
    await is_whole(harness)


async def meanwhile(
    harness: TrackingHarness,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Any], Awaitable[None]],
    *requests: TaskRequest,
) -> list[str]:
    """Create tasks in one batch while something changes after it was read; return their ids."""

    async def changing(_: asyncpg.Connection) -> None:
        with outside(harness.url) as server:
            await change(server)

    statements(monkeypatch, changing)
    with counted(conflict=1):
        made = await together(harness, *((harness.creator.create, each) for each in requests))
    monkeypatch.undo()
    assert {each.uid: each.id for each in made} == {row["uid"]: row["id"] for row in await harness.tasks()}
    return [each.uid for each in made]


async def test_a_task_of_an_organization_that_is_gone_fails_alone(harness: TrackingHarness) -> None:
    await harness.subscribe()
    uid = await harness.create()
    results = await together(
        harness,
        (harness.creator.create, request()),
        (harness.creator.create, request(organization_id=77)),
        (harness.applier.apply, answer(uid, 1)),
        (harness.creator.create, request()),
    )
    assert isinstance(results[1], asyncpg.ForeignKeyViolationError)
    assert not any(isinstance(each, Exception) for each in (results[0], *results[2:]))
    assert len(await harness.tasks()) == 3
    assert (await harness.task(uid))["provider_task_id"] == "pt-1"
    await is_whole(harness)


async def test_a_create_whose_answer_is_lost_is_found_with_all_keys(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.subscribe()
    published: list[Any] = []
    monkeypatch.setattr(harness.creator._after_commit.publisher, "publish", published.extend)
    uid = await harness.create()
    given = [request(callback=CALLBACK), request()]
    with monkeypatch.context() as patched:
        cut(harness.url, patched, "after")
        made = await together(
            harness, *((harness.creator.create, each) for each in given), (harness.applier.apply, answer(uid, 1))
        )
    rows = {row["uid"]: row for row in await harness.tasks()}
    assert [(each.id, each.uid) for each in made[:2]] == [(rows[each.uid]["id"], each.uid) for each in given]
    (callback,) = await harness.database.read(
        select(subscriptions.c.id).where(subscriptions.c.kind == SubscriptionKind.CALLBACK)
    )
    assert rows[given[0].uid]["callback_id"] == callback["id"]
    events = [(row["id"], row["uid"], row["task_id"]) for row in await harness.events()]
    assert sorted((key, event.uid, event.task_id) for key, event in published) == events
    assert {event.callback_id for _, event in published} == {None, callback["id"]}
    await is_whole(harness)


@pytest.mark.parametrize("how", ["before", "lost"])
async def test_a_create_that_was_lost_is_not_stored_then_or_later(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    cut(harness.url, monkeypatch, how)
    results = await together(harness, *((harness.creator.create, request(callback=CALLBACK)) for _ in range(2)))
    assert all(isinstance(each, StorageUnavailable) for each in results)
    assert await harness.tasks() == await harness.events() == []
    assert await harness.database.read(select(subscriptions)) == []


async def test_a_held_create_has_its_key_when_it_is_known(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)
    with held_commits(harness.url), pytest.raises(OutcomeUnknown) as caught:
        await harness.database.writer.write(harness.creator.create, request())
    assert caught.value.later is not None
    async with asyncio.timeout(20):
        made = await caught.value.later
    (row,) = await harness.tasks()
    assert (made.id, made.uid) == (row["id"], row["uid"])


async def test_who_listens_to_tasks_that_were_read_is_as_of_then(
    harness: TrackingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note of an earlier event may be written between the read for a new task and that of others."""
    await harness.subscribe(ordered=True)
    uid = await harness.create()
    found: list[list[Listener]] = []

    @may_be_optimistic
    async def create_first(tx: Transaction, _: Sequence[str]) -> list[Exception | None]:
        row = task_row()
        (key,) = await tx.insert_tasks([row])
        found.append((await tx.append_events([new_event(key, task_uid=row["uid"])], {1}, ()))[1])
        with outside(harness.url) as server:
            server.execute(
                "INSERT INTO fan_out "
                "(event_id, organization_id, task_id, after_subscription_id, until_subscription_id) "
                "SELECT max(id), 1, max(task_id), 0, 9 FROM event"
            )
        task = (await tx.load_tasks([uid]))[uid]
        found.append((await tx.append_events([new_event(task.id, task_uid=uid)], {1}, ()))[1])
        return [None]

    with counted(stored=1):
        await harness.database.writer.write(create_first, "")
    assert [[each.is_behind for each in listeners] for listeners in found] == [[False], [True]]


async def test_creates_of_several_processes_and_their_answers_are_all_stored_once(
    harness: TrackingHarness, tmp_path: Path
) -> None:
    await harness.subscribe()
    await harness.subscribe(ordered=True)

    async def run(place: int, of: TrackingHarness) -> None:
        for number in range(12):
            callback = Callback(f"https://{number}.example", None, str(number)) if place % 2 else None
            uid = await of.create(callback)
            await of.apply(answer(uid, 100 * place + number))
            await of.apply(arrival(TaskStatus.COMPLETED, uid, provider_task_id=f"pt-{100 * place + number}"))

    async with tracking(tmp_path) as other:
        await asyncio.gather(*(run(place, (harness, other)[place // 2 % 2]) for place in range(8)))
    rows = await harness.tasks()
    assert [row["status"] for row in rows] == [TaskStatus.COMPLETED] * 96
    events = await harness.events()
    for row in rows:
        types = [event["type"] for event in events if event["task_id"] == row["id"]]
        assert types == [EventType.TASK_CREATED, EventType.TASK_SUBMITTED, EventType.TASK_COMPLETED]
    callbacks = select(subscriptions).where(subscriptions.c.kind == SubscriptionKind.CALLBACK)
    assert len(await harness.database.read(callbacks)) == 12
    told = await harness.delivered()
    assert len(told) == 2 * len(events) + sum(
        event["type"] in CALLBACK.event_types
        for event in events
        if next(row for row in rows if row["id"] == event["task_id"])["callback_id"] is not None
    )


_KEPT = ", ".join(column.name for column in tasks.columns if column.name not in ("id", "uid", "provider_task_id"))
_OF_CALLBACK = ", ".join(each.name for each in subscriptions.columns if each.name not in ("id", "uid", "fingerprint"))


async def rows_read(database: Database, server: Outside, table: str) -> int:
    """Return how many rows of a table were read."""
    await database.writer.run(lambda tx: tx.execute(text("SELECT pg_stat_force_next_flush()")))
    await database.writer.run(lambda tx: tx.execute(text("SELECT 1")))
    server.execute("SELECT pg_stat_clear_snapshot()")
    ((count,),) = server.execute(
        "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = ?", (table,)
    ).fetchall()
    return int(count)


def add_copies(server: Outside, table: str, name: str, kept: str) -> None:
    """Add 3,000 copies of a row of a table, each with a text of its own in the column of this name."""
    server.execute(
        f"INSERT INTO {table} (uid, {name}, {kept}) SELECT gen_random_uuid(), 'more-' || number, {kept} "
        f"FROM (SELECT * FROM {table} LIMIT 1) AS one, generate_series(1, 3000) AS number"
    )


@pytest.fixture(params=[True, False], ids=["optimistic", "with locks"])
async def own(
    harness: TrackingHarness, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[TrackingHarness]:
    """A harness on the same database, whose connection has no plan yet."""
    settings = settings_in(tmp_path).model_copy(update={"optimistic_writes": request.param})
    async with await Database.open(settings) as database:
        yield TrackingHarness(harness.url, database)


async def test_a_plan_that_is_made_while_the_table_is_small_reads_few_rows_of_a_large_one(own: TrackingHarness) -> None:
    """The server keeps a plan until it counts the table again, which may be a minute later."""

    async def step(number: int) -> None:
        uid = await own.create()
        await own.apply(answer(uid, number))
        await own.apply(arrival(TaskStatus.PROCESSING, uid, provider_task_id=f"pt-{number}"))

    for number in range(12):
        await step(number)
    with outside(own.url) as server:
        add_copies(server, "task", "provider_task_id", _KEPT)
        before = await rows_read(own.database, server, "task")
        await step(100)
        assert 0 < await rows_read(own.database, server, "task") - before < 50


@pytest.mark.parametrize("is_analyzed", [True, False])
async def test_a_callback_is_looked_up_by_its_key_also_by_a_plan_for_few(
    own: TrackingHarness, is_analyzed: bool
) -> None:
    async def step(number: int) -> None:
        await own.create(Callback("https://a.example", None, str(number)))

    for number in range(12):
        await step(number)
    with outside(own.url) as server:
        if is_analyzed:
            server.execute("ANALYZE subscription")
        for _ in range(12):
            await step(0)
        add_copies(server, "subscription", "fingerprint", _OF_CALLBACK)
        before = await rows_read(own.database, server, "subscription")
        await step(0)
        await step(100)
        assert 0 < await rows_read(own.database, server, "subscription") - before < 50
