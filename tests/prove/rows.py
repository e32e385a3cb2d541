"""The final rows of a campaign, as the history keeps them: what the checks need, without bodies and secrets."""

import json
from collections.abc import Callable
from typing import Any

from tests.prove.history import History
from tests.prove.stores import Store

_QUERIES = {
    "tasks": (
        "SELECT uid AS task_id, run_uid AS run_id, step, status, submission, attempt, max_attempts, provider_task_id, "
        "bulk, input, error, ended_event, cancel_requested_at, due_at, leased, created_at, updated_at, ended_at, "
        "submitted_at, callback_id FROM task ORDER BY id"
    ),
    "attempts": (
        "SELECT t.uid AS task_id, a.number, a.provider_task_id, a.status, a.error, a.submitted_at FROM task_attempt a "
        "JOIN task t ON t.id = a.task_id ORDER BY a.id"
    ),
    "events": (
        "SELECT e.id AS sequence, e.uid AS event_id, e.type, t.uid AS task_id, e.run_uid AS run_id, e.snapshot, "
        "e.created_at FROM event e LEFT JOIN task t ON t.id = e.task_id ORDER BY e.id"
    ),
    "deliveries": (
        "SELECT d.uid AS delivery_id, s.uid AS webhook_id, e.uid AS event_id, t.uid AS task_id, d.status, d.attempt, "
        "d.replay_id, d.due_at, d.leased, d.settled_at FROM delivery d JOIN subscription s ON s.id = d.subscription_id "
        "JOIN event e ON e.id = d.event_id LEFT JOIN task t ON t.id = d.task_id ORDER BY d.id"
    ),
    "runs": "SELECT uid AS run_id, status, metadata, ended_event, created_at, ended_at FROM run ORDER BY id",
    "steps": (
        "SELECT r.uid AS run_id, s.name, s.position, s.status, s.task_uid AS task_id FROM run_step s "
        "JOIN run r ON r.id = s.run_id ORDER BY s.id"
    ),
    "webhooks": (
        "SELECT id, uid AS webhook_id, kind, endpoint_url, format, event_types, filters, ordered, is_active, "
        "disabled_reason, created_at, deleted_at FROM subscription ORDER BY id"
    ),
    "receipts": (
        "SELECT uid AS receipt_id, task_uid AS task_id, provider_task_id, reason, message FROM receipt ORDER BY id"
    ),
}
_KEPT_OF_SNAPSHOT = ("status", "attempt", "provider_task_id", "corrects", "retries", "error", "source")
Row = dict[str, Any]


def write_rows(history: History, store: Store) -> None:
    """Write one line for each table, from one look at each."""
    for table, query in _QUERIES.items():
        rows = [_changed(row) for row in store.select(query)]
        history.write("rows", table, rows=rows)


def _changed(row: Row) -> Row:
    for name, change in _CHANGES.items():
        if name in row:
            change(row)
    return row


def _mark_of_input(row: Row) -> None:
    given = _document(row.pop("input"))
    row["mark"] = given.get("mark") if isinstance(given, dict) else None


def _mark_of_metadata(row: Row) -> None:
    given = _document(row.pop("metadata"))
    row["mark"] = given.get("mark") if isinstance(given, dict) else None


def _code_of_error(row: Row) -> None:
    given = _document(row.pop("error"))
    row["error"] = given.get("code") if isinstance(given, dict) else given


def _short_snapshot(row: Row) -> None:
    snapshot = _document(row.pop("snapshot"))
    kept = {name: snapshot[name] for name in _KEPT_OF_SNAPSHOT if snapshot.get(name) is not None}
    if isinstance(kept.get("error"), dict):
        kept["error"] = kept["error"].get("code")
    row["snapshot"] = kept


def _last_of_url(row: Row) -> None:
    row["name"] = row.pop("endpoint_url").rpartition("/")[2]


def _document_in(name: str) -> Callable[[Row], None]:
    def read(row: Row) -> None:
        row[name] = _document(row[name])

    return read


def _flag_in(name: str) -> Callable[[Row], None]:
    def read(row: Row) -> None:
        row[name] = bool(row[name])

    return read


_CHANGES: dict[str, Callable[[Row], None]] = {
    "input": _mark_of_input,
    "metadata": _mark_of_metadata,
    "error": _code_of_error,
    "snapshot": _short_snapshot,
    "endpoint_url": _last_of_url,
    "event_types": _document_in("event_types"),
    "filters": _document_in("filters"),
    "leased": _flag_in("leased"),
    "ordered": _flag_in("ordered"),
    "is_active": _flag_in("is_active"),
    "bulk": _flag_in("bulk"),
}


def _document(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
