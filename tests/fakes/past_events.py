"""Past events, inserted into the database directly, so that a replay has events to send."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from receiver.domain.ids import new_id
from tests.fakes.databases import outside
from tests.fakes.world import World

_TASK = (
    "INSERT INTO task (uid, organization_id, provider, model, task_type, status, submission, attempt, max_attempts, "
    "backoff_seconds, progress, revision, metadata, created_at, updated_at, "
    "last_update_at, ended_at, leased, poll_count) "
    "VALUES (?, 1, 'piapi', ?, 'txt2img', 'completed', 'accepted', 1, 1, 1, 100, '', ?, ?, ?, ?, ?, false, 0) "
    "RETURNING id"
)
_EVENT = "INSERT INTO event (uid, organization_id, task_id, type, snapshot, created_at) VALUES (?, 1, ?, ?, ?, ?)"


def add_events(
    world: World,
    count: int,
    *,
    ago: timedelta = timedelta(hours=1),
    type: str = "task.completed",
    model: str = "flux",
    metadata: Mapping[str, Any] | None = None,
) -> list[str]:
    """Add events, each for its own task, which ended `ago` before now; return the event ids, oldest first."""
    moment = (datetime.now(UTC) - ago).replace(tzinfo=None).isoformat(" ", "microseconds")
    uids = [new_id() for _ in range(count)]
    with outside(world.database) as database:
        for uid in uids:
            task = (new_id(), model, json.dumps(metadata) if metadata else None, *[moment] * 4)
            (key,) = database.execute(_TASK, task).fetchone()
            database.execute(_EVENT, (uid, key, type, '{"status": "completed", "attempt": 1}', moment))
    return uids


def hours_ago(hours: float) -> str:
    """Return the time that many hours ago, in the form that the API accepts."""
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
