"""The writer's connection to SQLite: one connection, its statements on the loop's own thread.

A statement on pages that are in memory takes microseconds, less than handing it to a thread. The commit waits for
the disk: where that is slow it has a thread to itself, and the loop goes on collecting the next batch meanwhile.
"""

import asyncio
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Executable, Row, StaticPool, create_engine

from models import DeliveryStatus, Submission, SubscriptionKind, TaskStatus
from receiver.domain.transitions import TaskState
from receiver.errors import StorageUnavailable
from receiver.storage.hot import read_document, read_moment
from receiver.storage.tables import tasks
from receiver.storage.transaction import (
    DueTask,
    LeasedDelivery,
    Listener,
    NewDelivery,
    NewEvent,
    Settlement,
    TaskChange,
    Values,
)

PAGE_BYTES = 8192
QUICK_COMMIT_SECONDS = 0.0015
"""A disk that commits faster than this on average costs the loop less than the way to a thread and back."""
_STATE = (
    "id, uid, organization_id, status, submission, attempt, max_attempts, backoff_seconds, provider_task_id, "
    "progress, revision, words, callback_id, ended_event, looks, heard_at, model, task_type, metadata, started_at"
)
_DOCUMENTS = frozenset(column.name for column in tasks.columns if column.type.compile() == "JSON")
_BUSY_RETRY_SECONDS = 0.005


_DUE_DELIVERIES = f"""
WITH RECURSIVE lane(id) AS (
    SELECT min(subscription_id) FROM delivery WHERE due_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(subscription_id) FROM delivery WHERE due_at IS NOT NULL AND subscription_id > lane.id)
    FROM lane WHERE lane.id IS NOT NULL
)
SELECT delivery.id, delivery.subscription_id, delivery.attempt + 1
FROM lane JOIN subscription ON subscription.id = lane.id JOIN delivery ON delivery.id IN (
    SELECT due.id FROM delivery AS due
    WHERE due.subscription_id = lane.id AND due.due_at IS NOT NULL AND due.due_at <= ?2
    AND NOT (subscription.ordered AND EXISTS (
        SELECT 1 FROM delivery AS earlier
        WHERE earlier.task_id = due.task_id AND earlier.subscription_id = due.subscription_id
        AND earlier.id < due.id AND earlier.status = '{DeliveryStatus.PENDING}'
    ))
    ORDER BY due.due_at, due.id LIMIT ?3
)
WHERE lane.id NOT IN (SELECT value FROM json_each(?1))
ORDER BY delivery.due_at, delivery.id
"""
"""Goes from subscription to subscription by the index, so that one with a long queue costs the others nothing."""


def configure(connection: Any, *, writes: bool) -> None:
    """Set what every connection needs: WAL, `synchronous=FULL`, foreign keys, 8 KB pages in a new file."""
    if writes:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-65536")
    else:
        connection.execute("PRAGMA query_only=ON")


class SQLiteConnection:
    """The one connection that writes. `busy_seconds` is how long another process's lock is waited for."""

    def __init__(self, path: Path, *, busy_seconds: float = 5.0) -> None:
        self._engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            creator=lambda: _open(path),
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,  # errors are logged, and values are not for the log
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=read_document,
        )
        self._core = self._engine.connect()
        self._driver: sqlite3.Connection = self._core.connection.driver_connection  # type: ignore[assignment]
        self._thread = ThreadPoolExecutor(1, "ringback-commit")
        self._busy_seconds = busy_seconds
        self._commit_seconds = QUICK_COMMIT_SECONDS

    async def begin(self) -> "SQLiteTransaction":
        """Begin a transaction that holds the write lock. Raises `StorageUnavailable` if another keeps it."""
        deadline = asyncio.get_running_loop().time() + self._busy_seconds
        while True:
            try:
                self._driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or asyncio.get_running_loop().time() >= deadline:
                    raise _unavailable(error) from error
                await asyncio.sleep(_BUSY_RETRY_SECONDS)
            else:
                return SQLiteTransaction(self._core, self._driver)

    async def commit(self) -> None:
        """Return when the transaction is on disk. Raises `StorageUnavailable` if it is not."""
        started = time.perf_counter()
        try:
            if self._commit_seconds < QUICK_COMMIT_SECONDS:
                self._driver.commit()
            else:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._driver.commit)
        except sqlite3.OperationalError as error:
            raise _unavailable(error) from error
        self._commit_seconds += (time.perf_counter() - started - self._commit_seconds) / 4

    async def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        if self._driver.in_transaction:
            self._driver.rollback()

    def unavailable(self, error: Exception) -> StorageUnavailable | None:
        """Return the error for the client if it is the database's fault and not an item's."""
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, StorageUnavailable):
            return cause
        return _unavailable(cause) if isinstance(cause, sqlite3.OperationalError) and not _is_ours(cause) else None

    async def aclose(self) -> None:
        """Close the connection."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        self._core.close()
        self._engine.dispose()


class SQLiteTransaction:
    """The hot statements on SQLite. Nothing here waits, though it may be awaited."""

    def __init__(self, core: Any, driver: sqlite3.Connection) -> None:
        self.after_commit: list[Callable[[], None]] = []
        self._core = core
        self._driver = driver

    async def execute(self, statement: Executable, parameters: Sequence[Values] | None = None) -> Sequence[Row[Any]]:
        """Run a SQLAlchemy Core statement; return its rows, or none."""
        result = self._core.execute(statement, parameters)
        return result.fetchall() if result.returns_rows else ()

    async def load_tasks(self, uids: Collection[str]) -> dict[str, TaskState]:
        """Return the tasks by their outer id."""
        rows = self._driver.execute(
            f"SELECT {_STATE} FROM task WHERE uid IN (SELECT value FROM json_each(?))",
            (_json(list(uids)),),
        )
        return {state.uid: state for state in map(_state, rows)}

    async def find_tasks(self, provider: str, provider_task_ids: Collection[str]) -> dict[str, TaskState]:
        """Return the tasks by the provider's id."""
        rows = self._driver.execute(
            f"SELECT {_STATE} FROM task WHERE provider = ? AND provider_task_id IN (SELECT value FROM json_each(?))",
            (provider, _json(list(provider_task_ids))),
        )
        return {str(state.provider_task_id): state for state in map(_state, rows)}

    async def update_tasks(self, changes: Sequence[TaskChange]) -> None:
        """Write changed columns, grouped so that each group is one prepared statement."""
        groups: dict[tuple[str, ...], list[TaskChange]] = defaultdict(list)
        for change in changes:
            groups[tuple(sorted(change.values))].append(change)
        for names, group in groups.items():
            assignments = ", ".join(f"{name} = ?" for name in names)
            written = self._driver.executemany(
                f"UPDATE task SET {assignments} WHERE id = ? AND status = ? AND attempt = ?",
                [
                    (
                        *(_bind(name, change.values[name]) for name in names),
                        change.id,
                        change.from_status,
                        change.from_attempt,
                    )
                    for change in group
                ],
            ).rowcount
            if written != len(group):
                raise RuntimeError("a task changed under the writer's lock")

    async def insert_tasks(self, rows: Sequence[Values]) -> list[int]:
        """Insert whole rows; return their keys in order."""
        first = self._next_key("task")
        names = tuple(rows[0])
        columns = ", ".join(("id", *names))
        self._driver.executemany(
            f"INSERT INTO task ({columns}) VALUES ({_marks(len(names) + 1)})",
            [(key, *(_bind(name, row[name]) for name in names)) for key, row in enumerate(rows, first)],
        )
        return list(range(first, first + len(rows)))

    async def insert_events(self, events: Sequence[NewEvent]) -> list[int]:
        """Append events; return their sequence numbers in order."""
        found = self._driver.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        first = (found[0] if found else 0) + 1
        self._driver.executemany(
            "INSERT INTO event (id, uid, organization_id, task_id, type, snapshot, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    key,
                    event.uid,
                    event.organization_id,
                    event.task_id,
                    event.type,
                    _json(event.snapshot),
                    _moment(event.created_at),
                )
                for key, event in enumerate(events, first)
            ],
        )
        return list(range(first, first + len(events)))

    async def insert_deliveries(self, deliveries: Sequence[NewDelivery]) -> list[int]:
        """Insert deliveries; return their keys in order."""
        first = self._next_key("delivery")
        self._driver.executemany(
            "INSERT INTO delivery (id, uid, organization_id, subscription_id, event_id, task_id, replay_id, status, "
            "attempt, leased, schedule_from, due_at, created_at) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, '{DeliveryStatus.PENDING}', ?, ?, 0, ?, ?)",
            [
                (
                    key,
                    row.uid,
                    row.organization_id,
                    row.subscription_id,
                    row.event_id,
                    row.task_id,
                    row.replay_id,
                    row.attempt,
                    row.attempt > 0,
                    _moment(row.due_at),
                    _moment(row.created_at),
                )
                for key, row in enumerate(deliveries, first)
            ],
        )
        return list(range(first, first + len(deliveries)))

    async def listeners(self, organization_ids: Collection[int], callback_ids: Collection[int]) -> list[Listener]:
        """Return who may have to be told."""
        rows = self._driver.execute(
            "SELECT id, organization_id, kind, event_types, ordered, filters FROM subscription "
            "WHERE is_active AND deleted_at IS NULL "
            f"AND kind = '{SubscriptionKind.REGISTERED}' AND organization_id IN (SELECT value FROM json_each(?)) "
            "UNION ALL SELECT id, organization_id, kind, event_types, ordered, filters FROM subscription "
            "WHERE is_active AND deleted_at IS NULL AND id IN (SELECT value FROM json_each(?))",
            (_json(list(organization_ids)), _json(list(callback_ids))),
        )
        return [
            Listener(
                key,
                organization_id,
                SubscriptionKind(kind),
                frozenset(orjson.loads(types)),
                bool(ordered),
                None if filters is None else orjson.loads(filters),
            )
            for key, organization_id, kind, types, ordered, filters in rows
        ]

    async def claim_tasks(self, now: datetime, lease_until: datetime, limit: int) -> list[DueTask]:
        """Take due tasks, oldest first."""
        rows = self._driver.execute(
            f"SELECT {_STATE}, submitted_at FROM task WHERE due_at IS NOT NULL AND due_at <= ? ORDER BY due_at LIMIT ?",
            (_moment(now), limit),
        ).fetchall()
        self._driver.execute(
            "UPDATE task SET due_at = ?, leased = 1 WHERE id IN (SELECT value FROM json_each(?))",
            (_moment(lease_until), _json([row[0] for row in rows])),
        )
        due = [DueTask(_state(row[:-1]), None if row[-1] is None else read_moment(row[-1])) for row in rows]
        self._driver.executemany(
            "UPDATE task SET submission = ?, submitted_at = ? WHERE id = ?",
            [
                (Submission.SENDING, _moment(now), task.state.id)
                for task in due
                if task.state.status == TaskStatus.QUEUED and task.state.submission == Submission.WAITING
            ],
        )
        return due

    async def claim_deliveries(
        self, now: datetime, lease_until: datetime, limit: int, skip: Collection[int]
    ) -> list[LeasedDelivery]:
        """Take due deliveries, at most `limit` of each subscription."""
        rows = self._driver.execute(_DUE_DELIVERIES, (_json(list(skip)), _moment(now), limit)).fetchall()
        self._driver.execute(
            "UPDATE delivery SET due_at = ?, leased = 1, attempt = attempt + 1 "
            "WHERE id IN (SELECT value FROM json_each(?))",
            (_moment(lease_until), _json([row[0] for row in rows])),
        )
        return [LeasedDelivery(row[0], row[1], row[2], lease_until) for row in rows]

    async def failing(self, subscription_ids: Collection[int]) -> set[int]:
        """Return those of these subscriptions that have failed since their last success."""
        rows = self._driver.execute(
            "SELECT id FROM subscription WHERE id IN (SELECT value FROM json_each(?)) AND failing_since IS NOT NULL",
            (_json(list(subscription_ids)),),
        )
        return {row[0] for row in rows}

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Write outcomes of attempts."""
        rows = self._driver.execute(
            "SELECT id, attempt FROM delivery WHERE id IN (SELECT value FROM json_each(?)) "
            f"AND status = '{DeliveryStatus.PENDING}'",
            (_json([each.delivery_id for each in settlements]),),
        )
        pending = set(rows)
        held = []
        for each in settlements:
            held.append((each.delivery_id, each.attempt) in pending)
            pending.discard((each.delivery_id, each.attempt))
        self._driver.executemany(
            "UPDATE delivery SET status = ?, due_at = ?, leased = 0, settled_at = ? "
            f"WHERE id = ? AND attempt = ? AND status = '{DeliveryStatus.PENDING}'",
            [
                (each.status, _moment(each.due_at), _moment(each.settled_at), each.delivery_id, each.attempt)
                for each, is_held in zip(settlements, held, strict=True)
                if is_held
            ],
        )
        self._driver.executemany(
            "INSERT OR IGNORE INTO delivery_attempt (delivery_id, number, started_at, duration_ms, status_code, error, "
            "response) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.delivery_id,
                    each.attempt,
                    _moment(each.started_at),
                    each.duration_ms,
                    each.status_code,
                    each.error,
                    each.response,
                )
                for each in settlements
            ],
        )
        return held

    def _next_key(self, table: str) -> int:
        found = self._driver.execute(f"SELECT max(id) FROM {table}").fetchone()
        return (found[0] or 0) + 1


def _open(path: Path) -> sqlite3.Connection:
    # The commit's thread uses it too, but never at the same time: between BEGIN and the end of the commit
    # nothing else is run on it.
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    configure(connection, writes=True)
    return connection


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def _is_ours(error: sqlite3.Error) -> bool:
    """A wrong statement is our fault, and no reason to ask anybody to come again."""
    return any(words in str(error) for words in ("no such", "syntax error", "has no column"))


def _unavailable(error: Exception) -> StorageUnavailable:
    return StorageUnavailable(f"the database cannot be written to now ({error}); nothing was stored, try again")


def _state(row: Sequence[Any]) -> TaskState:
    return TaskState(
        id=row[0],
        uid=row[1],
        organization_id=row[2],
        status=row[3],
        submission=row[4],
        attempt=row[5],
        max_attempts=row[6],
        backoff_seconds=row[7],
        provider_task_id=row[8],
        progress=row[9],
        revision=row[10],
        words=None if row[11] is None else orjson.loads(row[11]),
        callback_id=row[12],
        ended_event=row[13],
        looks=row[14],
        heard_at=read_moment(row[15]),
        model=row[16],
        task_type=row[17],
        labels=None if row[18] is None else orjson.loads(row[18]),
        started_at=None if row[19] is None else read_moment(row[19]),
    )


def _bind(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _DOCUMENTS:
        return _json(value)
    return _moment(value) if isinstance(value, datetime) else value


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _moment(value: datetime | None) -> str | None:
    """Write a moment as SQLAlchemy does, so that both sort and compare as one."""
    if value is None:
        return None
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _marks(count: int) -> str:
    return ", ".join(["?"] * count)
