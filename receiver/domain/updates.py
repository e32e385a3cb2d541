"""What a provider reports about a task, in Ringback's own form, whether by a webhook, a poll or a create call."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from models import TaskStatus


class Source(StrEnum):
    """How an update reached Ringback."""

    WEBHOOK = "webhook"
    POLL = "poll"
    SUBMIT = "submit"
    """It is the outcome of the create call."""


class ProviderUpdate(Struct, kw_only=True):
    """One report about a task. Treat it as immutable. It holds no secret: the adapter removes an echoed one on parsing.

    `status` is None for a status word that Ringback does not know; `word` is that word. It never counts as terminal.
    `attempt` is the number of the attempt that the update is about, None where its source does not tell.
    `by_provider` is false for what Ringback concludes by itself (a time-out, an unknown submission).
    `handle` is what the adapter needs besides the id to ask for the task again; None if the id is enough.
    `reference` is our own name for the attempt, as it was sent, where the provider repeats it.
    `is_snapshot` is false for an update that has a state but no content; the stored content then stays.
    `last_update_at` is set on a conclusion of Ringback's: when the task had received its last update at that time. A
    task that has received another one since ignores the conclusion.
    `retryable` is false for a failure that another attempt would only repeat, such as a refusal.
    """

    source: Source
    status: TaskStatus | None
    word: str = ""
    provider_task_id: str | None = None
    handle: dict[str, Any] | None = None
    reference: str = ""
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


def cancellation(source: Source, attempt: int, *, by_provider: bool) -> ProviderUpdate:
    """Return the cancellation of an attempt, by its provider or by Ringback's own decision: the content stays."""
    return ProviderUpdate(
        source=source,
        status=TaskStatus.CANCELLED,
        attempt=attempt,
        by_provider=by_provider,
        is_snapshot=False,
    )


def own_failure(
    source: Source, code: str, message: str, *, detail: Any = None, last_update_at: datetime | None = None
) -> ProviderUpdate:
    """Return the failure of a task by Ringback's own decision: it is final, and the stored content stays."""
    return ProviderUpdate(
        source=source,
        status=TaskStatus.FAILED,
        error={"code": code, "message": message, "raw_message": "", "detail": detail},
        by_provider=False,
        is_snapshot=False,
        last_update_at=last_update_at,
        retryable=False,
    )
