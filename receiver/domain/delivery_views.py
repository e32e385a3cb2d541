"""How deliveries and replays look from outside. Rows in, plain JSON values out."""

from collections.abc import Mapping, Sequence
from typing import Any

from models import DeliveryStatus
from receiver.domain.redaction import REDACTED
from receiver.domain.representations import iso

Fields = Mapping[str, Any]


_SHOWN = frozenset({"content-type", "webhook-id", "webhook-timestamp", "x-pi-event"})
"""Headers of a delivery that tell nothing secret: neither signatures, nor what a user put there."""


def native_delivery(delivery: Fields) -> dict[str, Any]:
    """Return a delivery as the lists give it. Times are ISO 8601 in UTC, or null.

    `webhook_id` is null for a client's own callback, which is no webhook of `/api/v1/webhooks`; `attempts` is how
    many were begun; `next_attempt_at` is null when it is settled, under way, or waits for its webhook to be
    switched on; `last_status_code` and `last_error` are those of the last attempt that ended.
    """
    waits = delivery["status"] == DeliveryStatus.PENDING and not delivery["leased"]
    return {
        "object": "delivery",
        "id": delivery["uid"],
        "event_id": delivery["event_uid"],
        "event_type": delivery["event_type"],
        "webhook_id": delivery["webhook_uid"],
        "endpoint_url": delivery["endpoint_url"],
        "task_id": delivery["task_uid"],
        "replay_id": delivery["replay_uid"],
        "status": delivery["status"],
        "attempts": delivery["attempt"],
        "next_attempt_at": iso(delivery["due_at"]) if waits else None,
        "last_status_code": delivery["status_code"],
        "last_error": delivery["error"],
        "created_at": iso(delivery["created_at"]),
        "settled_at": iso(delivery["settled_at"]),
    }


def native_attempt(attempt: Fields) -> dict[str, Any]:
    """Return one attempt at a delivery; `response` is the start of the answer's body."""
    return {
        "number": attempt["number"],
        "started_at": iso(attempt["started_at"]),
        "duration_ms": attempt["duration_ms"],
        "status_code": attempt["status_code"],
        "error": attempt["error"],
        "response": attempt["response"],
    }


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a delivery's headers for a person to see: every name, and only the values that tell nothing secret."""
    return {name: value if name.lower() in _SHOWN else REDACTED for name, value in headers.items()}


def native_replay(replay: Fields, webhook_uid: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return a replay and how far it is; `counts` is how many of its deliveries are in which state.

    `deliveries` is how many it will send, as counted when it was asked for; `sent` how many were put on their way.
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
    """Return {replay: {status: count}} of rows that name these three."""
    found: dict[int, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["replay_id"], {})[row["status"]] = row["count"]
    return found
