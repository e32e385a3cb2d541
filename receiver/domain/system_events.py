"""What system events say: their data as subscribers get it, and one line of text for a person."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from models import SYSTEM_EVENTS, EventType
from receiver.domain.representations import Fields, iso, native_webhook
from receiver.domain.task_state import TaskState

FAILING_AFTER = timedelta(minutes=10)
"""An endpoint whose every attempt has failed for this long is told as failing: long enough to have been restarted."""
PAUSED_SECONDS = 30.0
"""A pause that a provider asks for is told if it is at least this long; shorter ones are its usual rate limit."""
_LONGEST_TEXT = 300


def is_death_told(event_type: str) -> bool:
    """Return whether it is told that a delivery of such an event was given up.

    Not that of a system event: its endpoint may be the one that fails, and each notice would cause the next.
    """
    return event_type not in SYSTEM_EVENTS


def failing_for_long(failing_since: datetime, now: datetime) -> bool:
    """Return whether an endpoint is to be told as failing, if all attempts since `failing_since` failed."""
    return now - failing_since >= FAILING_AFTER


def webhook_failing(webhook: Fields) -> dict[str, Any]:
    """Return the data of `webhook.failing`; `webhook` is the row."""
    return {"webhook": native_webhook(webhook)}


def delivery_dead(delivery: Fields, status_code: int | None, error: str | None) -> dict[str, Any]:
    """Return the data of `delivery.dead`, from a row of `storage.system.dead_deliveries` and the last attempt."""
    return {
        "delivery": {
            "id": delivery["uid"],
            "event_id": delivery["event_uid"],
            "event_type": delivery["event_type"],
            "webhook_id": delivery["webhook_uid"],
            "task_id": delivery["task_uid"],
            "attempts": delivery["attempt"],
            "status_code": status_code,
            "error": error,
        }
    }


def provider_paused(provider: str, seconds: float, now: datetime) -> dict[str, Any]:
    """Return the data of `provider.paused`: no call is made in the next `seconds`."""
    return {"provider": provider, "seconds": round(seconds, 1), "until": iso(now + timedelta(seconds=seconds))}


def provider_unauthorized(provider: str, message: str) -> dict[str, Any]:
    """Return the data of `provider.unauthorized`; `message` is what is wrong with Ringback's own key."""
    return {"provider": provider, "message": message}


def storage_unavailable(since: datetime, until: datetime) -> dict[str, Any]:
    """Return the data of `storage.unavailable`, which can only be recorded when that is over."""
    return {"since": iso(since), "until": iso(until), "seconds": round((until - since).total_seconds(), 1)}


def task_stuck(task: TaskState, since: datetime) -> dict[str, Any]:
    """Return the data of `task.stuck`; `since` is when the task last changed."""
    return {
        "task": {
            "task_id": task.uid,
            "model": task.model,
            "task_type": task.task_type,
            "status": task.status,
            "submission": task.submission,
            "provider": task.provider,
            "provider_task_id": task.provider_task_id,
            "unchanged_since": iso(since),
        }
    }


def alert_text(event_type: str, data: Mapping[str, Any]) -> str:
    """Return one line of text about a system event."""
    return _text(event_type, data)[:_LONGEST_TEXT]


def _text(event_type: str, data: Mapping[str, Any]) -> str:
    match event_type:
        case EventType.WEBHOOK_FAILING:
            webhook = data["webhook"]
            return f"webhook {webhook['id']} has failed since {webhook['failing_since']}"
        case EventType.WEBHOOK_DISABLED:
            return f"webhook {data['webhook']['id']} was switched off ({data['reason']})"
        case EventType.DELIVERY_DEAD:
            delivery = data["delivery"]
            reason = delivery["error"] or f"status {delivery['status_code']}"
            return f"delivery {delivery['id']} was given up after {delivery['attempts']} attempts: {reason}"
        case EventType.PROVIDER_PAUSED:
            return f"{data['provider']} asks for a pause until {data['until']}"
        case EventType.PROVIDER_UNAUTHORIZED:
            return f"{data['provider']} refuses the key: {data['message']}"
        case EventType.STORAGE_UNAVAILABLE:
            return f"nothing could be stored for {data['seconds']:g} s, until {data['until']}"
        case EventType.TASK_STUCK:
            task = data["task"]
            return f"task {task['task_id']} ({task['status']}) has not changed since {task['unchanged_since']}"
    raise ValueError(f"{event_type} is not a system event")
