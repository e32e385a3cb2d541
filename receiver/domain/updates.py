"""What a provider told us, in our own form, whatever the way it came."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from models import TaskStatus


class Source(StrEnum):
    """The way an update came."""

    WEBHOOK = "webhook"
    POLL = "poll"
    SUBMIT = "submit"


@dataclass(slots=True, kw_only=True)
class ProviderUpdate:
    """One thing heard of a task, never changed. Holds no secret: the adapter takes the echoed one out at the door.

    `status` is None for a word that nobody knows, which `word` then names: it is never terminal.
    `attempt` is the attempt that it speaks of, None where the way it came does not tell.
    `by_provider` is false for what Ringback concludes by itself (a time-out, an unknown submission).
    `is_snapshot` is false for what tells a state and nothing of the content, which then stays as it is.
    `last_update_at` is the last news that a conclusion of ours was drawn from: newer news makes it void.
    `retryable` is false for a failure that another attempt would only repeat, such as a refusal.
    """

    source: Source
    status: TaskStatus | None
    word: str = ""
    provider_task_id: str | None = None
    attempt: int | None = None
    model: str | None = None
    task_type: str | None = None
    input: Any = None
    progress: int = 0
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    logs: list[Any] | None = None
    detail: Any = None
    meta: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    by_provider: bool = True
    is_snapshot: bool = True
    last_update_at: datetime | None = None
    retryable: bool = True
