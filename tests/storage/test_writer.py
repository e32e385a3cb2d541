"""The group-commit writer, on a real SQLite file."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import uvloop
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from receiver.errors import OutcomeUnknown, StorageUnavailable, Unavailable, WriterFull
from receiver.storage import loop_turns, write_queue
from receiver.storage import writer as writer_module
from receiver.storage.sqlite import SQLiteConnection
from receiver.storage.transaction import Transaction
from receiver.storage.writer import MOST_AT_ONCE, Writer

pytestmark = pytest.mark.sqlite_only("counts and holds up the commits of a SQLite file")

INSERT = text("INSERT INTO note (body) VALUES (:body)")


class CountingConnection:
    """The real connection, which counts its commits. A closed `gate` holds up the next commit, `fault` fails it."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self.inner = SQLiteConnection(path, busy_seconds=busy_seconds)
        self.commits = 0
        self.rollbacks = 0
        self.committing = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def begin(self, *, is_brief: bool = False) -> Transaction:
        return await self.inner.begin(is_brief=is_brief)

    async def commit(self) -> None:
        self.committing.set()
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        await self.inner.commit()
        self.commits += 1

    async def rollback(self) -> None:
        self.rollbacks += 1
        await self.inner.rollback()

    def is_conflict(self, error: Exception) -> bool:
        return self.inner.is_conflict(error)

    def is_locked(self, error: BaseException) -> bool:
        return self.inner.is_locked(error)

    def unavailable(self, error: BaseException) -> Unavailable | None:
        return self.inner.unavailable(error)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Notes:
    """A writer whose handler inserts notes, and a way to read the notes that are on disk."""

    def __init__(self, path: Path, *, busy_seconds: float = 0.05) -> None:
        self.path = path
        self.connection = CountingConnection(path, busy_seconds)
        self.writer = Writer(self.connection, capacity=1000)
        self.handled: list[list[str]] = []

    async def insert(self, tx: Transaction, bodies: Sequence[str]) -> list[str | Exception]:
        self.handled.append(list(bodies))
        wanted = [body for body in bodies if body != "unwanted"]
        if wanted:
            await tx.execute(INSERT, [{"body": None if body == "poison" else body} for body in wanted])
        return [ValueError(body) if body == "unwanted" else f"wrote {body}" for body in bodies]

    def begin(self, *bodies: str) -> list["asyncio.Task[str]"]:
        """Begin to write each body; they wait together while the writer is not started, or busy."""
        return [asyncio.create_task(self.writer.write(self.insert, body)) for body in bodies]

    def on_disk(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as reader:
            return [row[0] for row in reader.execute("SELECT body FROM note ORDER BY id")]


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[Notes]:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE)")
    notes = Notes(path)
    yield notes
    notes.connection.gate.set()
    await notes.writer.aclose()


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold SQLite's write lock, as another process would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def test_all_waiting_writes_share_one_commit(notes: Notes) -> None:
    writes = notes.begin(*(f"note {number}" for number in range(200)))
    await asyncio.sleep(0)
    notes.writer.start()
    assert await asyncio.gather(*writes) == [f"wrote note {number}" for number in range(200)]
    assert notes.connection.commits == 1
    assert notes.on_disk() == [f"note {number}" for number in range(200)]


async def test_writes_that_arrive_during_a_commit_share_the_next_one(notes: Notes) -> None:
    notes.writer.start()
    notes.connection.gate.clear()
    first = notes.begin("first")
    await notes.connection.committing.wait()
    others = notes.begin("second", "third")
    await asyncio.sleep(0)
    notes.connection.gate.set()
    await asyncio.gather(*first, *others)
    assert notes.connection.commits == 2
    assert notes.handled == [["first"], ["second", "third"]]


async def test_writes_in_quick_succession_share_commits(notes: Notes) -> None:
    notes.connection.inner.fetch("PRAGMA synchronous=OFF", ())  # writes are as quick as on a fast disk
    notes.writer.start()
    writes = []
    for number in range(400):
        writes += notes.begin(f"note {number}")
        for _ in range(3):  # long enough for a commit of its own
            await asyncio.sleep(0)
    await asyncio.gather(*writes)
    assert notes.connection.commits < 300
    assert len(notes.on_disk()) == 400


async def test_a_deferrable_write_shares_the_commit_of_several_other_writes(notes: Notes) -> None:
    notes.writer.start()
    deferred = asyncio.create_task(notes.writer.write(notes.insert, "deferred", deferrable=True))
    await asyncio.sleep(0)
    urgent = [f"urgent {number}" for number in range(4)]
    await asyncio.gather(deferred, *notes.begin(*urgent))
    assert notes.connection.commits == 1
    assert notes.handled == [[*urgent, "deferred"]]


async def test_a_write_that_comes_alone_does_not_wait_for_a_deferrable_one(notes: Notes) -> None:
    notes.writer.start()
    deferred = asyncio.create_task(notes.writer.write(notes.insert, "deferred", deferrable=True))
    await asyncio.sleep(0)
    await asyncio.gather(deferred, *notes.begin("urgent"))
    assert notes.handled == [["urgent"], ["deferred"]]


async def test_deferrable_writes_get_a_commit_of_their_own_if_no_other_write_comes(notes: Notes) -> None:
    notes.writer.start()
    writes = [notes.writer.write(notes.insert, f"note {number}", deferrable=True) for number in range(3)]
    await asyncio.gather(*writes)
    assert notes.connection.commits == 1
    assert notes.on_disk() == ["note 0", "note 1", "note 2"]


class Books:
    """A handler that leaves calls for after the commit, and the order of what happens."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.kept = asyncio.Event()

    async def handle(self, tx: Transaction, names: Sequence[str]) -> list[str | Exception]:
        self.order += [f"{name} handled" for name in names]
        tx.after_commit.append(lambda: self.order.extend(f"{name} followed" for name in names))
        tx.bookkeeping.append(lambda: self._keep(names))
        return list(names)

    async def write(self, writer: Writer, name: str) -> None:
        await writer.write(self.handle, name)
        self.order.append(f"{name} told")

    def _keep(self, names: Sequence[str]) -> None:
        self.order += [f"{name} noted" for name in names]
        self.kept.set()


async def test_bookkeeping_comes_when_the_caller_goes_on(notes: Notes) -> None:
    notes.writer.start()
    books = Books()
    await books.write(notes.writer, "first")
    async with asyncio.timeout(10):
        await books.kept.wait()
    assert books.order == ["first handled", "first followed", "first told", "first noted"]


async def test_bookkeeping_does_not_pile_up_while_writes_wait(notes: Notes) -> None:
    notes.writer.start()
    books = Books()
    notes.connection.gate.clear()
    first = asyncio.create_task(books.write(notes.writer, "first"))
    await notes.connection.committing.wait()
    second = asyncio.create_task(books.write(notes.writer, "second"))
    await asyncio.sleep(0)
    notes.connection.gate.set()
    await asyncio.gather(first, second)
    assert books.order.index("first noted") < books.order.index("second handled")


async def test_closing_leaves_no_bookkeeping(notes: Notes) -> None:
    notes = Notes(notes.path)
    notes.writer.start()
    books = Books()
    await books.write(notes.writer, "first")
    await notes.writer.aclose()
    assert books.order[-1] == "first noted"


async def test_bookkeeping_of_a_held_commit_waits_until_it_is_known(notes: Notes) -> None:
    notes.writer.start()
    books = Books()
    later = asyncio.get_running_loop().create_future()
    notes.connection.fault = OutcomeUnknown(later=later)
    with pytest.raises(OutcomeUnknown):
        await books.write(notes.writer, "first")
    assert books.order == ["first handled"]
    later.set_result(None)
    async with asyncio.timeout(10):
        await books.kept.wait()
    assert books.order == ["first handled", "first followed", "first noted"]


async def test_closing_stores_deferred_writes(notes: Notes) -> None:
    notes = Notes(notes.path)
    notes.writer.start()
    deferred = asyncio.create_task(notes.writer.write(notes.insert, "deferred", deferrable=True))
    await asyncio.sleep(0)
    await notes.writer.aclose()
    assert await deferred == "wrote deferred"
    assert notes.on_disk() == ["deferred"]


async def test_deferred_writes_count_towards_the_capacity(notes: Notes) -> None:
    writer = Writer(notes.connection, capacity=2)
    writes = [asyncio.create_task(writer.write(notes.insert, body, deferrable=True)) for body in ("one", "two")]
    await asyncio.sleep(0)
    with pytest.raises(WriterFull):
        await writer.write(notes.insert, "three")
    writer.start()
    await asyncio.gather(*writes)


async def test_a_query_runs_between_transactions_only_and_sees_what_was_committed(notes: Notes) -> None:
    connection, query = notes.connection.inner, "SELECT body FROM note"
    assert connection.fetch(query, ()) == []
    notes.writer.start()
    notes.connection.gate.clear()
    writes = notes.begin("first")
    await notes.connection.committing.wait()
    assert connection.fetch(query, ()) is None
    notes.connection.gate.set()
    await asyncio.gather(*writes)
    assert connection.fetch(query, ()) == [("first",)]
    with pytest.raises(IntegrityError):
        await asyncio.gather(*notes.begin("poison"))
    assert connection.fetch(query, ()) == [("first",)]


async def test_a_closed_connection_runs_no_query(notes: Notes) -> None:
    connection = SQLiteConnection(notes.path)
    await connection.aclose()
    assert connection.fetch("SELECT body FROM note", ()) is None


async def test_a_batch_is_bounded(notes: Notes) -> None:
    writes = notes.begin(*(f"note {number}" for number in range(MOST_AT_ONCE + 1)))
    await asyncio.sleep(0)
    notes.writer.start()
    await asyncio.gather(*writes)
    assert [len(batch) for batch in notes.handled] == [MOST_AT_ONCE, 1]


async def test_each_handler_gets_its_items_in_order_and_each_caller_its_result(notes: Notes) -> None:
    async def shout(tx: Transaction, bodies: Sequence[str]) -> list[str | Exception]:
        await tx.execute(INSERT, [{"body": body.upper()} for body in bodies])
        return [body.upper() for body in bodies]

    writes = [
        asyncio.create_task(notes.writer.write(handler, body))
        for handler, body in ((notes.insert, "a"), (shout, "b"), (notes.insert, "c"), (shout, "d"))
    ]
    await asyncio.sleep(0)
    notes.writer.start()
    assert await asyncio.gather(*writes) == ["wrote a", "B", "wrote c", "D"]
    assert notes.on_disk() == ["a", "c", "B", "D"]
    assert notes.connection.commits == 1


@pytest.mark.parametrize("index", [0, 3, 6])
async def test_an_item_that_cannot_be_stored_fails_alone(notes: Notes, index: int) -> None:
    bodies = [f"note {number}" for number in range(6)]
    writes = notes.begin(*bodies[:index], "poison", *bodies[index:])
    await asyncio.sleep(0)
    notes.writer.start()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(outcomes.pop(index), IntegrityError)
    assert outcomes == [f"wrote {body}" for body in bodies]
    assert notes.on_disk() == bodies


async def test_an_error_that_a_handler_returns_is_raised_for_that_item_only(notes: Notes) -> None:
    writes = notes.begin("before", "unwanted", "after")
    await asyncio.sleep(0)
    notes.writer.start()
    before, unwanted, after = await asyncio.gather(*writes, return_exceptions=True)
    assert (before, after) == ("wrote before", "wrote after")
    assert isinstance(unwanted, ValueError)
    assert notes.on_disk() == ["before", "after"]
    assert notes.connection.commits == 1


async def test_a_handler_that_returns_too_few_results_fails_only_its_own_items(notes: Notes) -> None:
    async def too_few(_tx: Transaction, _items: Sequence[int]) -> list[Exception | None]:
        return []

    (kept,) = notes.begin("kept")
    wrong = asyncio.create_task(notes.writer.write(too_few, 1))
    await asyncio.sleep(0)
    notes.writer.start()
    with pytest.raises(ValueError, match="zip"):
        await wrong
    assert await kept == "wrote kept"
    assert notes.on_disk() == ["kept"]


async def test_a_write_of_many_rows_counts_by_its_weight(notes: Notes) -> None:
    writer = Writer(notes.connection, capacity=10)
    # An empty queue takes a write of any weight; otherwise a heavy one could never be written.
    writes = [asyncio.create_task(writer.write(notes.insert, "large", items=25))]
    await asyncio.sleep(0)
    with pytest.raises(WriterFull):
        await writer.write(notes.insert, "small")
    writer.start()
    assert await asyncio.gather(*writes) == ["wrote large"]
    assert await writer.write(notes.insert, "small") == "wrote small"


async def test_writes_of_many_rows_do_not_all_share_one_transaction(notes: Notes) -> None:
    half = MOST_AT_ONCE // 2
    weights = {"a": half, "b": half, "c": 1, "d": MOST_AT_ONCE * 2, "e": 1}
    writes = [
        asyncio.create_task(notes.writer.write(notes.insert, body, items=weight, bounded=False))
        for body, weight in weights.items()
    ]
    await asyncio.sleep(0)
    notes.writer.start()
    await asyncio.gather(*writes)
    assert notes.handled == [["a", "b"], ["c"], ["d"], ["e"]]


async def test_a_queue_that_clients_have_filled_takes_essential_writes(notes: Notes) -> None:
    writer = Writer(notes.connection, capacity=40)
    waiting: list[asyncio.Task[str]] = []

    async def fill(prefix: str, *, essential: bool = False, organization: int | None = None) -> int:
        for number in range(100):
            write = writer.write(notes.insert, f"{prefix} {number}", essential=essential, organization=organization)
            waiting.append(asyncio.create_task(write))
            await asyncio.sleep(0)
            if waiting[-1].done():
                with pytest.raises(WriterFull):
                    await waiting.pop()
                return number
        return 100

    assert await fill("one", organization=1) == 15, "half of what is not kept for essential writes"
    assert await fill("other", organization=2) == 8, "and another finds room"
    assert await fill("of none") == 7
    assert await fill("essential", essential=True) == 10
    unbounded = asyncio.create_task(writer.write(notes.insert, "unbounded", bounded=False))
    await asyncio.sleep(0)
    writer.start()
    await asyncio.gather(*waiting, unbounded)
    assert len(notes.on_disk()) == 41


async def test_organizations_take_turns_in_what_a_batch_takes(notes: Notes) -> None:
    writes = [
        asyncio.create_task(
            notes.writer.write(
                notes.insert, f"{organization} {number}", items=40, bounded=False, organization=number_of
            )
        )
        for organization, number_of, count in (("busy", 1, 20), ("quiet", 2, 2))
        for number in range(count)
    ]
    await asyncio.sleep(0)
    notes.writer.start()
    await asyncio.gather(*writes)
    first = ["busy 0", "quiet 0", "busy 1", "quiet 1", *(f"busy {number}" for number in range(2, 10))]
    assert notes.handled == [first, [f"busy {number}" for number in range(10, 20)]]


async def test_heavy_writes_have_batches_of_their_own_and_leave_time_to_others(notes: Notes) -> None:
    heavy = [
        asyncio.create_task(
            notes.writer.write(notes.insert, f"heavy {number}", organization=1, items=items, size=size, bounded=False)
        )
        for number, (items, size) in enumerate([(200, 0), (1, 1_000_000), (200, 0)])
    ]
    heavy.append(asyncio.create_task(notes.writer.write(notes.insert, "heavy of another", organization=3, items=200)))
    light = [
        asyncio.create_task(notes.writer.write(notes.insert, f"light {number}", organization=number % 2 + 4))
        for number in range(4)
    ]
    light.append(asyncio.create_task(notes.writer.write(notes.insert, "light of the busy one", organization=3)))
    await asyncio.sleep(0)
    notes.writer.start()
    await asyncio.gather(*light[:4])
    assert notes.handled[:2] == [["heavy 0"], [f"light {number}" for number in range(4)]]
    await asyncio.gather(*heavy, *light)
    assert all(len(batch) == 1 for batch in notes.handled if any(body.startswith("heavy") for body in batch))
    order = [body for batch in notes.handled for body in batch]
    assert [body for body in order if body in ("heavy 0", "heavy 1", "heavy 2")] == ["heavy 0", "heavy 1", "heavy 2"]
    assert order.index("heavy of another") < order.index("light of the busy one")


async def test_heavy_writes_share_batches_while_one_organization_alone_writes(notes: Notes) -> None:
    writes = [
        asyncio.create_task(notes.writer.write(notes.insert, str(number), organization=1, items=100))
        for number in range(4)
    ]
    await asyncio.sleep(0)
    notes.writer.start()
    await asyncio.gather(*writes)
    assert notes.handled == [["0", "1", "2", "3"]]


async def test_closing_stores_the_writes_of_an_organization_that_rests(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "REST", 1e9)
    notes = Notes(notes.path)
    heavy = [
        asyncio.create_task(notes.writer.write(notes.insert, str(number), organization=1, items=1000, bounded=False))
        for number in range(3)
    ]
    heavy.append(asyncio.create_task(notes.writer.write(notes.insert, "of another", organization=2)))
    notes.writer.start()
    await asyncio.gather(heavy[0], heavy[3])
    assert not any(write.done() for write in heavy[1:3])
    await asyncio.wait_for(notes.writer.aclose(), 10)
    assert await asyncio.gather(*heavy) == ["wrote 0", "wrote 1", "wrote 2", "wrote of another"]


class Others:
    """What else runs on the loop: it always has something to do, or it waits; it counts its turns."""

    def __init__(self, seconds: float) -> None:
        self.turns = 0
        self._seconds = seconds

    async def run(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)
            compute(self._seconds)

    async def wait(self) -> None:
        await asyncio.Event().wait()


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def between_two_batches(path: Path, others: Others, running: Coroutine[None, None, None]) -> tuple[int, float]:
    """Return how many turns others have, and the seconds, between two batches that compute for 50 ms each."""
    writer = Writer(SQLiteConnection(path), is_on_loop=True)
    ended: list[tuple[int, float]] = []
    begun: list[tuple[int, float]] = []
    has_begun = asyncio.Event()

    async def long(_tx: Transaction, items: Sequence[str]) -> list[str | Exception]:
        has_begun.set()
        begun.append((others.turns, time.monotonic()))
        compute(0.05)
        ended.append((others.turns, time.monotonic()))
        return list(items)

    async def write_twice() -> None:
        first = asyncio.create_task(writer.write(long, "first"))
        await has_begun.wait()
        second = asyncio.create_task(writer.write(long, "second"))
        await asyncio.gather(first, second)

    competing = asyncio.create_task(running)
    writer.start()
    await write_twice()
    competing.cancel()
    await writer.aclose()
    return begun[1][0] - ended[0][0], begun[1][1] - ended[0][1]


async def test_others_have_many_turns_between_two_batches_that_take_long(tmp_path: Path) -> None:
    others = Others(0.001)
    turns, _ = await between_two_batches(tmp_path / "notes.db", others, others.run())
    assert turns > 20  # of a millisecond each, after a batch of 50


async def test_a_batch_does_not_wait_for_others_that_only_wait(tmp_path: Path) -> None:
    others = Others(0)
    _, seconds = await between_two_batches(tmp_path / "notes.db", others, others.wait())
    assert seconds < loop_turns.OTHERS_SHARE * 0.05 / 2


async def test_what_others_compute_during_a_slow_commit_is_not_the_batch_s(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []

    async def note(took: float, _is_hurried: Callable[[], bool]) -> None:
        left.append(took)

    monkeypatch.setattr(writer_module, "leave_turns", note)
    notes = Notes(notes.path)
    notes.connection.gate.clear()
    writer = Writer(notes.connection, is_on_loop=True)
    writer.start()
    writing = asyncio.create_task(writer.write(notes.insert, "one"))
    await notes.connection.committing.wait()
    compute(0.1)
    notes.connection.gate.set()
    await writing
    await writer.aclose()
    assert len(left) == 1
    assert 0 < left[0] < 0.05


async def test_others_have_no_turns_beyond_a_bound_or_at_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_turns, "LONGEST_SECONDS", 0.05)
    others = Others(0.001)
    competing = asyncio.create_task(others.run())
    began = time.monotonic()
    await loop_turns.leave_turns(60.0, lambda: False)
    assert time.monotonic() - began < 1
    assert others.turns
    begun = others.turns
    await loop_turns.leave_turns(60.0, lambda: True)
    assert others.turns == begun
    competing.cancel()


async def test_a_full_queue_refuses_bounded_writes_only(notes: Notes) -> None:
    writer = Writer(notes.connection, capacity=2)
    waiting = [asyncio.create_task(writer.write(notes.insert, body)) for body in ("one", "two")]
    await asyncio.sleep(0)
    with pytest.raises(WriterFull):
        await writer.write(notes.insert, "three")
    unbounded = asyncio.create_task(writer.write(notes.insert, "four", bounded=False))
    await asyncio.sleep(0)
    writer.start()
    await asyncio.gather(*waiting, unbounded)
    assert notes.on_disk() == ["one", "two", "four"]
    assert await writer.write(notes.insert, "five") == "wrote five"


async def test_closing_commits_waiting_writes_and_refuses_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE)")
    notes = Notes(path)
    notes.writer.start()
    writes = notes.begin("last note")
    await asyncio.sleep(0)
    await notes.writer.aclose()
    assert await writes[0] == "wrote last note"
    assert notes.on_disk() == ["last note"]
    with pytest.raises(WriterFull):
        await notes.writer.write(notes.insert, "too late", bounded=False)


def writing(called: list[str], body: str) -> Callable[[Transaction], Awaitable[None]]:
    async def work(tx: Transaction) -> None:
        tx.after_commit.append(lambda: called.append(body))
        await tx.execute(INSERT, [{"body": None if body == "poison" else body}])

    return work


async def test_after_commit_runs_when_the_transaction_is_on_disk(notes: Notes) -> None:
    called: list[str] = []
    notes.writer.start()
    notes.connection.gate.clear()
    write = asyncio.create_task(notes.writer.run(writing(called, "a")))
    await notes.connection.committing.wait()
    assert called == []
    notes.connection.gate.set()
    await write
    await notes.writer.run(writing(called, "b"))
    assert called == ["a", "b"]


async def test_after_commit_does_not_run_for_a_write_that_was_not_stored(notes: Notes) -> None:
    called: list[str] = []
    writes = [asyncio.create_task(notes.writer.run(writing(called, body))) for body in ("a", "poison", "b")]
    await asyncio.sleep(0)
    notes.writer.start()
    await asyncio.gather(*writes, return_exceptions=True)
    assert called == ["a", "b"]
    notes.connection.fault = StorageUnavailable("the disk is gone")
    with pytest.raises(StorageUnavailable):
        await notes.writer.run(writing(called, "c"))
    assert called == notes.on_disk() == ["a", "b"]


async def test_a_cancelled_caller_does_not_affect_other_writes(notes: Notes) -> None:
    notes.writer.start()
    notes.connection.gate.clear()
    cancelled, stays = notes.begin("cancelled", "stays")
    await notes.connection.committing.wait()
    waiting, later = notes.begin("cancelled too", "later")
    await asyncio.sleep(0)
    cancelled.cancel()
    waiting.cancel()
    notes.connection.gate.set()
    assert [await stays, await later] == ["wrote stays", "wrote later"]
    assert notes.on_disk() == ["cancelled", "stays", "cancelled too", "later"]


def test_the_time_of_a_commit_on_the_event_loop_is_measured(tmp_path: Path) -> None:
    """The loop's own time stands still within one of its turns, as uvloop's does."""
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE)")

    async def write_slowly() -> None:
        notes = Notes(path)
        inner = notes.connection.commit

        async def commit() -> None:
            time.sleep(0.02)  # noqa: ASYNC251 - as a disk that holds up the loop
            await inner()

        notes.connection.commit = commit  # type: ignore[method-assign]
        notes.writer.start()
        await notes.begin("slow")[0]
        await notes.writer.aclose()

    before = REGISTRY.get_sample_value("ringback_commit_duration_seconds_sum") or 0.0
    uvloop.run(write_slowly())
    assert (REGISTRY.get_sample_value("ringback_commit_duration_seconds_sum") or 0.0) - before >= 0.02
