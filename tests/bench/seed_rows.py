"""Rows inserted into a store by SQL alone: a million tasks in seconds.

A task's id is derived from its number (`task_id`), so that it need not be read back from the database.
"""

import time
from collections.abc import Mapping

from tests.bench.databases import Store

FIRST_ENDED = 1 << 32
"""The first number of a task that ended in the past. Tasks that wait for their webhook are numbered from 1."""
MODEL, RARE_MODEL = "Qubico/flux1-schnell", "Qubico/hunyuan"
_DAYS = 30


class _SQLite:
    """SQL expressions for SQLite. `n` is the number of the row."""

    false = "0"

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
    """SQL expressions for PostgreSQL. `n` is the number of the row."""

    false = "false"

    def series(self, first: int, last: int) -> str:
        return f"generate_series({first}::bigint, {last}::bigint) AS n"

    def uid(self, kind: int, number: str) -> str:
        return f"('01900000-0000-7000-{kind}000-' || lpad(to_hex({number}), 12, '0'))::uuid"

    def moment(self, seconds: str) -> str:
        return f"to_timestamp({seconds})"

    def document(self, text: str) -> str:
        return f"({text})::jsonb"


_Dialect = _SQLite | _PostgreSQL


def task_id(number: int) -> str:
    """Return the UUID of the task with this number."""
    return f"01900000-0000-7000-8000-{number:012x}"


def add_pending_tasks(store: Store, count: int, *, model: str = MODEL, due_in: float = 3600) -> range:
    """Add tasks that the provider works on, with the next poll due in `due_in` seconds; return their numbers."""
    numbers = range(store.tasks + 1, store.tasks + count + 1)
    store.tasks += count
    dialect, now = _dialect(store), int(time.time())
    columns = _columns(dialect, model=f"'{model}'", status="'pending'", moment=dialect.moment(str(now)))
    columns |= {"revision": "'2.000.000000.000000.0'", "progress": "0", "due_at": dialect.moment(str(now + due_in))}
    store.execute(_insert("task", columns, dialect.series(numbers[0], numbers[-1])))
    return numbers


def add_ended_tasks(store: Store, count: int) -> None:
    """Add tasks that ended in the last days, most of them completed and of one model, as fast as the database can."""
    dialect = _dialect(store)
    start = int(time.time()) - (_DAYS + 1) * 86400
    moment = dialect.moment(f"{start} + (n - {FIRST_ENDED}) * {_DAYS * 86400.0 / count}")
    columns = _columns(dialect, model=_models(), status=_statuses(), moment=moment)
    columns |= {
        "progress": "100",
        "output": dialect.document("""'{"image_url":"https://img.example.com/' || n || '.png"}'"""),
        "meta": dialect.document("""'{"usage":{"type":"point","frozen":0,"consume":20000}}'"""),
        "started_at": moment,
        "ended_at": moment,
    }
    insert = _insert("task", columns, dialect.series(FIRST_ENDED, FIRST_ENDED + count - 1))
    (_fill_sqlite if store.is_sqlite else _fill_postgresql)(store, insert)


def add_due_deliveries(store: Store, tasks: range, subscription_uid: str) -> None:
    """Add an event and a due delivery of it for each of these tasks, which may not receive a webhook afterwards."""
    dialect, now = _dialect(store), _dialect(store).moment(str(int(time.time())))
    ids = f"uid BETWEEN '{task_id(tasks[0])}' AND '{task_id(tasks[-1])}'"
    snapshot = dialect.document("""'{"status":"completed","attempt":1,"progress":100}'""")
    event = {"organization_id": "1", "task_id": "id", "type": "'task.completed'", "snapshot": snapshot}
    event |= {"uid": dialect.uid(9, "id"), "created_at": now}
    delivery = {"organization_id": "1", "event_id": "event.id", "task_id": "event.task_id", "status": "'pending'"}
    delivery |= {"subscription_id": "subscription.id", "attempt": "0", "schedule_from": "0", "leased": dialect.false}
    delivery |= {"uid": dialect.uid(8, "event.id"), "created_at": now, "due_at": now}
    source = f"event JOIN task ON task.id = event.task_id, subscription WHERE subscription.uid = '{subscription_uid}'"
    store.execute(
        "BEGIN",
        _insert("event", event, f"task WHERE {ids} ORDER BY id"),
        _insert("delivery", delivery, f"{source} AND task.{ids} ORDER BY event.id"),
        "COMMIT",
    )


def add_statistics(store: Store, models: int) -> None:
    """Add the sums of a month of tasks and deliveries: of its days and hours, and of the minutes of two days.

    `models` is how many rows each time has: one of each model, and that of all.
    """
    dialect, now = _dialect(store), int(time.time())
    histogram = dialect.document("'{" + ",".join(f'"{bucket}":{bucket}' for bucket in range(150, 190)) + "}'")
    for step, seconds, count in (("day", 86400, _DAYS), ("hour", 3600, _DAYS * 24), ("minute", 60, 2 * 1440)):
        last = now // seconds * seconds
        at = dialect.moment(f"{last} - (n / {models}) * {seconds}")
        task = {
            "organization_id": "1",
            "step": f"'{step}'",
            "at": at,
            "provider": f"CASE n % {models} WHEN 0 THEN '' ELSE 'piapi' END",
        }
        task |= {
            "model": f"CASE n % {models} WHEN 0 THEN '' ELSE 'model-' || (n % {models}) END",
            "durations": histogram,
        }
        task |= dict.fromkeys(("created", "completed", "failed", "cancelled", "by_webhook", "by_poll"), "50")
        at = dialect.moment(f"{last} - n * {seconds}")
        delivery = {"organization_id": "1", "step": f"'{step}'", "subscription_id": "0", "at": at}
        delivery |= {"attempts": "100", "delivered": "99", "dead": "0", "latencies": histogram}
        store.execute(
            _insert("task_statistic", task, dialect.series(0, count * models - 1)),
            _insert("delivery_statistic", delivery, dialect.series(0, count - 1)),
        )


def add_metadata_values(store: Store) -> None:
    """Add two values of metadata for each task: one of fifty, and one of its own."""
    columns = {"organization_id": "1", "task_id": "id"}
    common, own = columns | {"value": "'campaign-' || (id % 50)"}, columns | {"value": "'order-' || id"}
    store.execute(
        "BEGIN",
        _insert("task_metadata_value", common, "task"),
        _insert("task_metadata_value", own, "task"),
        "COMMIT",
        "ANALYZE task_metadata_value",
    )


def _dialect(store: Store) -> _Dialect:
    return _SQLite() if store.is_sqlite else _PostgreSQL()


def _insert(table: str, columns: Mapping[str, str], source: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {source}"


def _columns(dialect: _Dialect, *, model: str, status: str, moment: str) -> dict[str, str]:
    prompt = "a cat in the rain, " * 10
    return {
        "uid": dialect.uid(8, "n"),
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
        "input": dialect.document(f"""'{{"prompt":"{prompt}"}}'"""),
        "created_at": moment,
        "updated_at": moment,
        "submitted_at": moment,
        "last_update_at": moment,
        "leased": dialect.false,
        "poll_count": "0",
    }


def _models() -> str:
    return (
        f"CASE WHEN n % 1000 = 7 THEN '{RARE_MODEL}' WHEN n % 10 = 1 THEN 'kling' WHEN n % 10 = 2 THEN 'luma' "
        f"ELSE '{MODEL}' END"
    )


def _statuses() -> str:
    # The factor makes a task's status independent of its model.
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
    store.close()  # so that the next connection has the usual pragmas


def _fill_postgresql(store: Store, insert: str) -> None:
    indexes = store.rows("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'task' AND indexname LIKE 'ix%'")
    store.execute(
        "SET maintenance_work_mem = '512MB'",
        "SET session_replication_role = replica",  # skips a million checks of the same foreign key
        "BEGIN",
        *(f"DROP INDEX {name}" for name, _ in indexes),
        insert,
        *(definition for _, definition in indexes),
        "COMMIT",
        "VACUUM (ANALYZE, FREEZE) task",  # autovacuum would do it a little later
        "CHECKPOINT",
    )
    store.close()
