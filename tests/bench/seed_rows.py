"""Rows inserted into a store by SQL alone: a million tasks in seconds.

A task's id is derived from its number (`task_id`), so that it need not be read back from the database.
"""

import time
from collections.abc import Callable

from tests.bench.databases import Store
from tests.bench.seed_sql import Dialect, dialect_of, fill, insert_from

FIRST_ENDED = 1 << 32
"""The first number of a task that ended in the past. Tasks that wait for their webhook are numbered from 1."""
MODEL, RARE_MODEL = "Qubico/flux1-schnell", "Qubico/hunyuan"
TASKS_A_STEP, TASKS_A_RUN = 10, 20
"""Of how many tasks that ended one is the step of a run, and how many there are for each run: one has two steps."""
_DAYS = 30
_AT_A_TIME = 1_000_000
"""Rows that one statement adds: the log of the database holds no more than these."""
_PLACE = f"(n - {FIRST_ENDED} + 1)"
"""The place of an ended task among them, from 1: its row key too, if they are the first tasks of a database."""


def task_id(number: int) -> str:
    """Return the UUID of the task with this number."""
    return f"01900000-0000-7000-8000-{number:012x}"


def add_pending_tasks(store: Store, count: int, *, model: str = MODEL, due_in: float = 3600) -> range:
    """Add tasks that the provider works on, with the next poll due in `due_in` seconds; return their numbers."""
    numbers = range(store.tasks + 1, store.tasks + count + 1)
    store.tasks += count
    dialect, now = dialect_of(store), int(time.time())
    columns = _columns(dialect, model=f"'{model}'", status="'pending'", moment=dialect.moment(str(now)))
    columns |= {"revision": "'2.000.000000.000000.0'", "progress": "0", "due_at": dialect.moment(str(now + due_in))}
    store.execute(insert_from("task", columns, dialect.series(numbers[0], numbers[-1])))
    return numbers


def add_ended_tasks(store: Store, count: int, *, tell: Callable[[int], None] | None = None) -> None:
    """Add tasks that ended in the last days, most of them completed and of one model, as fast as the database can.

    `tell` is told how many of them have been added, from time to time.
    """
    dialect = dialect_of(store)
    start = int(time.time()) - (_DAYS + 1) * 86400
    seconds = f"{start} + (n - {FIRST_ENDED}) * {_DAYS * 86400.0 / count}"
    moment = dialect.moment(seconds)
    columns = _columns(dialect, model=_models(), status=_statuses(), moment=moment)
    of_run = f"{start} + {_PLACE} / {TASKS_A_RUN} * {TASKS_A_RUN * _DAYS * 86400.0 / count}"
    columns |= {
        "uid": dialect.uid_at(seconds, "n"),
        "progress": "100",
        "output": dialect.document("""'{"image_url":"https://img.example.com/' || n || '.png"}'"""),
        "meta": dialect.document("""'{"usage":{"type":"point","frozen":0,"consume":20000}}'"""),
        "metadata": dialect.document(
            f"""'{{"campaign":"campaign-' || ({_PLACE} % 50) || '","order":"order-' || {_PLACE} || '"}}'"""
        ),
        "run_uid": f"CASE WHEN {_PLACE} % {TASKS_A_STEP} = 0 "
        f"THEN {dialect.uid_at(of_run, f'{_PLACE} / {TASKS_A_RUN}')} END",
        "started_at": moment,
        "ended_at": moment,
    }
    firsts = range(0, count, _AT_A_TIME)
    lasts = [min(first + _AT_A_TIME, count) for first in firsts]
    pieces = [
        dialect.series(FIRST_ENDED + first, FIRST_ENDED + last - 1) for first, last in zip(firsts, lasts, strict=True)
    ]
    fill(
        store,
        "task",
        *(insert_from("task", columns, piece) for piece in pieces),
        tell=None if tell is None else lambda done: tell(lasts[done - 1]),
    )


def add_due_deliveries(store: Store, tasks: range, subscription_uid: str) -> None:
    """Add an event and a due delivery of it for each of these tasks, which may not receive a webhook afterwards."""
    dialect, now = dialect_of(store), dialect_of(store).moment(str(int(time.time())))
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
        insert_from("event", event, f"task WHERE {ids} ORDER BY id"),
        insert_from("delivery", delivery, f"{source} AND task.{ids} ORDER BY event.id"),
        "COMMIT",
    )


def add_statistics(store: Store, models: int) -> None:
    """Put the sums of a month of tasks and deliveries in place of those that a service has kept.

    There are those of its days and hours, and of the minutes of two days. `models` is how many rows each time has: one
    of each model, and that of all.
    """
    dialect, now = dialect_of(store), int(time.time())
    store.execute("DELETE FROM task_statistic", "DELETE FROM delivery_statistic")
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
            insert_from("task_statistic", task, dialect.series(0, count * models - 1)),
            insert_from("delivery_statistic", delivery, dialect.series(0, count - 1)),
        )


def add_metadata_values(store: Store) -> None:
    """Add two values of metadata for each task: one of fifty, and one of its own."""
    columns = {"organization_id": "1", "task_id": "id"}
    common, own = columns | {"value": "'campaign-' || (id % 50)"}, columns | {"value": "'order-' || id"}
    store.execute(
        "BEGIN",
        insert_from("task_metadata_value", common, "task"),
        insert_from("task_metadata_value", own, "task"),
        "COMMIT",
        "ANALYZE task_metadata_value",
    )


def _columns(dialect: Dialect, *, model: str, status: str, moment: str) -> dict[str, str]:
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
