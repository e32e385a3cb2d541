"""Deliveries and replays as JSON values. Arguments are rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from models import DeliveryStatus
from receiver.domain.redaction import REDACTED
from receiver.domain.representations import Fields, iso

_PUBLIC_HEADERS = frozenset({"content-type", "webhook-id", "webhook-timestamp", "x-pi-event"})
"""The headers of a delivery whose values are not secret: no signature, and no header that a user configured."""


def native_delivery(delivery: Fields) -> dict[str, Any]:
    """Return a delivery as the lists return it. Times are ISO 8601 in UTC, or null.

    `webhook_id` is null for a client's callback, which is not in `/api/v1/webhooks`. `attempt_count` is the number
    of attempts that were started. `next_attempt_at` is null when the delivery is settled or in flight, or waits for its
    webhook to be enabled. `last_status_code` and `last_error` are those of the last attempt that ended.
    """
    is_waiting = delivery["status"] == DeliveryStatus.PENDING and not delivery["leased"]
    return {
        "object": "delivery",
        "id": delivery["uid"],
        "event_id": delivery["event_uid"],
        "event_type": delivery["event_type"],
        "webhook_id": delivery["webhook_uid"],
        "endpoint_url": delivery["endpoint_url"],
        "task_id": delivery["task_uid"],
        "run_id": delivery["run_uid"],
        "replay_id": delivery["replay_uid"],
        "status": delivery["status"],
        "attempt_count": delivery["attempt"],
        "next_attempt_at": iso(delivery["due_at"]) if is_waiting else None,
        "last_status_code": delivery["status_code"],
        "last_error": delivery["error"],
        "created_at": iso(delivery["created_at"]),
        "settled_at": iso(delivery["settled_at"]),
    }


def native_attempt(attempt: Fields) -> dict[str, Any]:
    """Return one attempt of a delivery. `response` is the beginning of the response body."""
    return {
        "attempt": attempt["number"],
        "started_at": iso(attempt["started_at"]),
        "duration_ms": attempt["duration_ms"],
        "status_code": attempt["status_code"],
        "error": attempt["error"],
        "response": attempt["response"],
    }


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a delivery, with every value that may be secret replaced by `REDACTED`."""
    return {name: value if name.lower() in _PUBLIC_HEADERS else REDACTED for name, value in headers.items()}


def native_replay(replay: Fields, webhook_uid: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return a replay with its progress. `counts` is the number of its deliveries in each status.

    `deliveries` is the number of deliveries to send, counted when the replay was requested; `sent` is the number of
    those that it has queued.
    """
    return {
        "object": "replay",
        "id": replay["uid"],
        "kind": replay["kind"],
        "webhook_id": webhook_uid,
        "status": replay["status"],
        "deliveries": replay["total"],
        "sent": replay["sent"],
        **{status.value: counts.get(status, 0) for status in DeliveryStatus},
        "since": iso(replay["since"]),
        "until": iso(replay["until"]),
        "event_types": replay["event_types"],
        "created_at": iso(replay["created_at"]),
        "ended_at": iso(replay["ended_at"]),
    }


def counts_by_replay(rows: Sequence[Fields]) -> dict[int, dict[str, int]]:
    """Return {replay_id: {status: count}} of rows with these three columns."""
    counts: dict[int, dict[str, int]] = {}
    for row in rows:
        counts.setdefault(row["replay_id"], {})[row["status"]] = row["count"]
    return counts
