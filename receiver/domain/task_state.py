"""The columns of a task's row that a decision needs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct


class TaskState(Struct):
    """The columns of a task's row that a decision depends on."""

    id: int
    uid: str
    organization_id: int
    status: str
    submission: str
    attempt: int
    max_attempts: int
    backoff_seconds: float
    provider_task_id: str | None
    progress: int
    revision: str
    words: list[str] | None
    callback_id: int | None
    ended_event: str | None
    poll_count: int
    last_update_at: datetime
    model: str = ""
    task_type: str = ""
    metadata: dict[str, Any] | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    missing_count: int = 0
    missing_since: datetime | None = None
    exception_count: int = 0
    provider: str = ""
    run_uid: str | None = None
    step: str | None = None
    cancel_requested_at: datetime | None = None
    created_at: datetime | None = None
    trace_context: str | None = None
    handle: dict[str, Any] | None = None
    account_id: int | None = None
    due_at: datetime | None = None
    leased: bool = False

    def apply_changes(self, changes: Mapping[str, Any]) -> None:
        """Apply changes of the row to this state. Columns that the state does not have are ignored."""
        for name, value in changes.items():
            if name in _STATE_NAMES:
                setattr(self, name, value)


STATE_COLUMNS = TaskState.__struct_fields__
"""The names of the fields of `TaskState`, in order: the columns that both databases select."""
_STATE_NAMES = frozenset(STATE_COLUMNS)
