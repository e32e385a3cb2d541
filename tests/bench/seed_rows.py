"""Rows put into a store by SQL alone: a million tasks in seconds.

A task's id is made from a number, so that nobody has to read it back: `task_id(number)`.
"""

import time
from collections.abc import Mapping

from tests.bench.databases import Store

FIRST_ENDED = 1 << 32
"""The numbers of tasks that ended long ago begin here; those of tasks that wait for their webhook begin at 1."""
MODEL, RARE_MODEL = "Qubico/flux1-schnell", "Qubico/hunyuan"
_DAYS = 30


class _SQLite:
    """How SQLite says it. `n` is the number of the row."""

    no = "0"

    def series(self, first: int, last: int) -> str:
        return (
            f"(WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {last}) "
            "SELECT n FROM series)"
        )

    def uid(self, kind: int, number: str) -> str:
        return f"printf('01900000-0000-7000-{kind}000-%012x', {number})"

    def moment(self, seconds: str) -> str:
        return f"strftime('%Y-%m-%d %H:%M:%f000', {seconds}, 'unixepoch')"

    def document(self, text: str) -> str:
        return text


class _PostgreSQL:
    """How PostgreSQL says it."""

    no = "false"

    def series(self, first: int, last: int) -> str:
        return f"generate_series({first}::bigint, {last}::bigint) AS n"

    def uid(self, kind: int, number: str) -> str:
        return f"('01900000-0000-7000-{kind}000-' || lpad(to_hex({number}), 12, '0'))::uuid"

    def moment(self, seconds: str) -> str:
        return f"to_timestamp({seconds})"

    def document(self, text: str) -> str:
        return f"({text})::jsonb"


_Words = _SQLite | _PostgreSQL


def task_id(number: int) -> str:
    """Return the outer id of the task with this number."""
    return f"01900000-0000-7000-8000-{number:012x}"


def add_pending_tasks(store: Store, count: int, *, model: str = MODEL, due_in: float = 3600) -> range:
    """Add tasks that the provider works on, to be looked at in so many seconds; return their numbers."""
    numbers = range(store.tasks + 1, store.tasks + count + 1)
    store.tasks += count
    words, now = _words(store), int(time.time())
    columns = _columns(words, model=f"'{model}'", status="'pending'", moment=words.moment(str(now)))
    columns |= {"revision": "'2.000.000000.000000.0'", "progress": "0", "due_at": words.moment(str(now + due_in))}
    store.execute(_insert("task", columns, words.series(numbers[0], numbers[-1])))
    return numbers


def add_ended_tasks(store: Store, count: int) -> None:
    """Add tasks that ended in the last days: most completed, most of one model. As fast as the database can."""
    words = _words(store)
    start = int(time.time()) - (_DAYS + 1) * 86400
    moment = words.moment(f"{start} + (n - {FIRST_ENDED}) * {_DAYS * 86400.0 / count}")
    columns = _columns(words, model=_models(), status=_statuses(), moment=moment)
    columns |= {
        "progress": "100",
        "output": words.document("""'{"image_url":"https://img.example.com/' || n || '.png"}'"""),
        "meta": words.document("""'{"usage":{"type":"point","frozen":0,"consume":20000}}'"""),
        "started_at": moment,
        "ended_at": moment,
    }
    insert = _insert("task", columns, words.series(FIRST_ENDED, FIRST_ENDED + count - 1))
    (_fill_sqlite if store.is_sqlite else _fill_postgresql)(store, insert)


def add_due_deliveries(store: Store, tasks: range, subscription_uid: str) -> None:
    """Add a delivery that is due for each of these tasks, which wait for no webhook any more, with its event."""
    words, now = _words(store), _words(store).moment(str(int(time.time())))
    ids = f"uid BETWEEN '{task_id(tasks[0])}' AND '{task_id(tasks[-1])}'"
    snapshot = words.document("""'{"status":"completed","attempt":1,"progress":100}'""")
    event = {"organization_id": "1", "task_id": "id", "type": "'task.completed'", "snapshot": snapshot}
    event |= {"uid": words.uid(9, "id"), "created_at": now}
    delivery = {"organization_id": "1", "event_id": "event.id", "task_id": "event.task_id", "status": "'pending'"}
    delivery |= {"subscription_id": "subscription.id", "attempt": "0", "schedule_from": "0", "leased": words.no}
    delivery |= {"uid": words.uid(8, "event.id"), "created_at": now, "due_at": now}
    of_them = f"event JOIN task ON task.id = event.task_id, subscription WHERE subscription.uid = '{subscription_uid}'"
    store.execute(
        "BEGIN",
        _insert("event", event, f"task WHERE {ids} ORDER BY id"),
        _insert("delivery", delivery, f"{of_them} AND task.{ids} ORDER BY event.id"),
        "COMMIT",
    )


def _words(store: Store) -> _Words:
    return _SQLite() if store.is_sqlite else _PostgreSQL()


def _insert(table: str, columns: Mapping[str, str], source: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {source}"


def _columns(words: _Words, *, model: str, status: str, moment: str) -> dict[str, str]:
    prompt = "a cat in the rain, " * 10
    return {
        "uid": words.uid(8, "n"),
        "organization_id": "1",
        "provider": "'piapi'",
        "model": model,
        "task_type": "'txt2img'",
        "status": status,
        "submission": "'accepted'",
        "attempt": "1",
        "max_attempts": "1",
        "backoff_seconds": "1.0",
        "provider_task_id": "'p-' || n",
        "revision": "''",
        "input": words.document(f"""'{{"prompt":"{prompt}"}}'"""),
        "created_at": moment,
        "updated_at": moment,
        "submitted_at": moment,
        "last_update_at": moment,
        "leased": words.no,
        "poll_count": "0",
    }


def _models() -> str:
    return (
        f"CASE WHEN n % 1000 = 7 THEN '{RARE_MODEL}' WHEN n % 10 = 1 THEN 'kling' WHEN n % 10 = 2 THEN 'luma' "
        f"ELSE '{MODEL}' END"
    )


def _statuses() -> str:
    # The factor keeps the status of a task apart from its model.
    return (
        "CASE WHEN n * 7919 % 1009 < 30 THEN 'failed' WHEN n * 7919 % 1009 < 40 THEN 'cancelled' ELSE 'completed' END"
    )


def _fill_sqlite(store: Store, insert: str) -> None:
    indexes = store.rows("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'task' AND sql <> ''")
    store.execute(
        "PRAGMA synchronous = OFF",
        "PRAGMA cache_size = -262144",
        "BEGIN",
        *(f"DROP INDEX {name}" for name, _ in indexes),
        insert,
        *(sql for _, sql in indexes),
        "COMMIT",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    )
    store.close()  # the next connection has the usual pragmas


def _fill_postgresql(store: Store, insert: str) -> None:
    indexes = store.rows("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'task' AND indexname LIKE 'ix%'")
    store.execute(
        "SET maintenance_work_mem = '512MB'",
        "SET session_replication_role = replica",  # a million checks of the same foreign key prove nothing
        "BEGIN",
        *(f"DROP INDEX {name}" for name, _ in indexes),
        insert,
        *(definition for _, definition in indexes),
        "COMMIT",
        "VACUUM (ANALYZE, FREEZE) task",  # what autovacuum would do a little later
        "CHECKPOINT",
    )
    store.close()
