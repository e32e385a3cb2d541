"""What belongs to the ended tasks of a database: events, deliveries with attempts, runs and receipts, by SQL alone."""

from tests.bench.databases import Store
from tests.bench.seed_rows import FIRST_ENDED, TASKS_A_RUN, TASKS_A_STEP
from tests.bench.seed_sql import Dialect, dialect_of, fill, insert_from

WEBHOOKS = 20
"""Each gets the deliveries of a twentieth of the tasks."""
RECEIPTS = 10_000
_END = f"{FIRST_ENDED} + task.id"


def webhook_id(number: int) -> str:
    """Return the id of the webhook with this number, from 0."""
    return f"01900000-0000-7000-a000-{number:012x}"


def add_history(store: Store) -> None:
    """Add two events, a delivery and its attempt for each task of a store, runs, webhooks and receipts.

    The tasks are those of `add_ended_tasks`, and nothing else is in the store.
    """
    dialect = dialect_of(store)
    _add_webhooks(store, dialect)
    fill(store, "event", _events(dialect))
    fill(store, "delivery", _deliveries(dialect))
    fill(store, "delivery_attempt", _attempts())
    _add_runs(store, dialect)
    _add_receipts(store, dialect)
    store.execute("ANALYZE")
    for log, table in (("events", "event"), ("attempts", "delivery_attempt")):
        newest = f"SELECT max(id) FROM {table}"
        store.execute(f"UPDATE statistic_position SET position = ({newest}) WHERE log = '{log}'")
    store.close()


def _add_webhooks(store: Store, dialect: Dialect) -> None:
    moment = dialect.moment("1767225600")
    columns = {"uid": dialect.uid(0xA, "n"), "organization_id": "1", "kind": "'registered'", "format": "'standard'"}
    columns |= {"endpoint_url": "'http://127.0.0.1:9/' || n", "event_types": dialect.document("""'["run.failed"]'""")}
    columns |= {"ordered": dialect.false, "signature": "'v1'", "is_active": dialect.true}
    columns |= {"created_at": moment, "updated_at": moment}
    store.execute(insert_from("subscription", columns, dialect.series(0, WEBHOOKS - 1)))


def _events(dialect: Dialect) -> str:
    """Return the statement that inserts two events of each task: that it was created, and that it ended."""
    status = "CASE is_end WHEN 1 THEN status ELSE 'queued' END"
    snapshot = f"""'{{"status":"' || {status} || '","attempt":1,"progress":0,"source":"webhook"}}'"""
    columns = {"uid": dialect.uid(9, "task.id * 2 + is_end"), "organization_id": "1", "task_id": "task.id"}
    columns |= {"run_uid": "run_uid", "type": "CASE is_end WHEN 1 THEN 'task.' || status ELSE 'task.created' END"}
    columns |= {"snapshot": dialect.document(snapshot), "created_at": "created_at"}
    both = "(SELECT 0 AS is_end UNION ALL SELECT 1)"
    return insert_from("event", columns, f"task CROSS JOIN {both} AS kinds ORDER BY task.id, is_end")


def _deliveries(dialect: Dialect) -> str:
    """Return the statement that inserts a delivery of the end of each task; one of a thousand was given up."""
    uid = dialect.uid_at(dialect.seconds("event.created_at"), "event.id")
    columns = {"uid": uid, "organization_id": "1", "event_id": "event.id", "attempt": "1"}
    columns |= {"status": "CASE WHEN event.id % 1000 = 0 THEN 'dead' ELSE 'delivered' END"}
    columns |= {"task_id": "task_id", "subscription_id": "subscription.id", "schedule_from": "0"}
    columns |= {"leased": dialect.false, "created_at": "event.created_at", "settled_at": "event.created_at"}
    of_webhook = f"subscription ON subscription.id = 1 + task_id % {WEBHOOKS}"
    return insert_from("delivery", columns, f"event JOIN {of_webhook} WHERE type <> 'task.created' ORDER BY event.id")


def _attempts() -> str:
    columns = {"delivery_id": "id", "number": "1", "started_at": "created_at", "duration_ms": "20 + id % 200"}
    columns |= {"status_code": "CASE status WHEN 'dead' THEN 500 ELSE 200 END", "response": "'ok'"}
    return insert_from("delivery_attempt", columns, "delivery ORDER BY id")


def _add_runs(store: Store, dialect: Dialect) -> None:
    """Add the runs that tasks are steps of."""
    times = {"created_at": "min(created_at)", "updated_at": "max(created_at)", "ended_at": "max(created_at)"}
    run = {"uid": "run_uid", "organization_id": "1", "status": "'completed'", **times}
    step = {"run_id": "run.id", "position": f"task.id / {TASKS_A_STEP} % {TASKS_A_RUN // TASKS_A_STEP}"}
    step |= {"name": f"'step-' || ({step['position']})", "status": "'completed'", "task_uid": "task.uid"}
    step |= {"spec": dialect.document("""'{"action":"generate","depends_on":[]}'"""), "completed_at": "task.ended_at"}
    store.execute(
        insert_from("run", run, "task WHERE run_uid IS NOT NULL GROUP BY run_uid ORDER BY min(id)"),
        insert_from("run_step", step, "task JOIN run ON run.uid = task.run_uid ORDER BY task.id"),
    )


def _add_receipts(store: Store, dialect: Dialect) -> None:
    columns = {"uid": dialect.uid(8, "id"), "provider": "provider", "task_uid": "uid", "reason": "'superseded'"}
    columns |= {"message": "'the update is of an earlier attempt'", "body": "'{}'", "received_at": "created_at"}
    store.execute(insert_from("receipt", columns, f"task ORDER BY id LIMIT {RECEIPTS}"))
