"""What is kept of a create call whose outcome is unknown, in the task's `error` until it is known. Pure functions."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate, Source

CREATE_CALL_FAILED = "create_call_failed"
"""The error code of a task while it is not known whether the provider made it although it answered with an error.

The error's `detail` has the provider's `status`."""

SUBMISSION_UNKNOWN = "submission_unknown"
"""The error code of a task that failed because it is not known whether the provider made it."""
SENT_SINCE_BACKUP = "restored_from_backup"
"""The error code of a task that may have been sent after the backup from which it was restored.

The error's `detail` has `until`: when it was restored, in ISO 8601."""

LAG_SECONDS = 30.0
"""The first and the last look that did not find a task are at least so long apart, or half the time of the search."""
FEWEST_LOOKS = 2


def sent_since_backup(until: datetime) -> dict[str, Any]:
    """Return the error to keep for a task that may have been sent at any time until it was restored."""
    message = "the database was restored from a backup, and the task may have been sent since that was made"
    return {
        "code": SENT_SINCE_BACKUP,
        "message": message,
        "raw_message": message,
        "detail": {"until": until.isoformat()},
    }


def sent_until(error: Any) -> datetime | None:
    """Return until when a restored task may have been sent; None for any other, whose call began at a known time.

    `error` is that of the task, also of one that has failed because it was not found (`SUBMISSION_UNKNOWN`).
    """
    if not isinstance(error, Mapping) or error.get("code") not in (SENT_SINCE_BACKUP, SUBMISSION_UNKNOWN):
        return None
    detail = error.get("detail")
    return datetime.fromisoformat(detail["until"]) if isinstance(detail, Mapping) and "until" in detail else None


def lost_answer(message: str, status: int | None) -> dict[str, Any]:
    """Return the error to keep: with `status` if the provider said with it that the call failed."""
    code, detail = (None, None) if status is None else (CREATE_CALL_FAILED, {"status": status})
    return {"code": code, "message": message, "raw_message": message, "detail": detail}


def failed_status(error: Any) -> int | None:
    """Return the status with which the provider said that the create call failed, None if it did not say so."""
    if not isinstance(error, Mapping) or error.get("code") != CREATE_CALL_FAILED:
        return None
    detail = error.get("detail")
    status = detail.get("status") if isinstance(detail, Mapping) else None
    return status if isinstance(status, int) else None


def known_words(error: Any) -> str:
    """Return what is known of a create call whose outcome is unknown, in brackets; "" if nothing is.

    An error with another code is that of an earlier attempt.
    """
    if not isinstance(error, Mapping) or error.get("code") not in (None, CREATE_CALL_FAILED):
        return ""
    return f" as expected ({error['message']})" if error.get("message") else ""


def failed_attempt(
    code: int | str,
    message: str,
    *,
    detail: Any = None,
    retryable: bool = True,
    last_update_at: datetime | None = None,
) -> ProviderUpdate:
    """Return the failure of an attempt by its create call, with the provider's code and message."""
    return ProviderUpdate(
        source=Source.SUBMIT,
        status=TaskStatus.FAILED,
        error={"code": code, "message": message, "raw_message": message, "detail": detail},
        retryable=retryable,
        is_snapshot=False,
        last_update_at=last_update_at,
    )


def latest_start(submitted_at: datetime, error: Any) -> datetime:
    """Return when a create call began; of a task that was restored from a backup, the latest time that it may be."""
    return sent_until(error) or submitted_at


def searched_until(
    submitted_at: datetime, error: Any, seconds: float, looks: tuple[int, datetime | None], began: datetime
) -> datetime:
    """Return before when a create call without an answer is not given up, which is searched for `seconds` at least.

    `looks` are how many complete lists did not have the task, and when the first was read; the look now `began` then.
    """
    lag = timedelta(seconds=min(LAG_SECONDS, seconds / 2))
    count, first = looks
    ends = [latest_start(submitted_at, error) + timedelta(seconds=seconds)]
    if first is not None:
        ends.append(first + lag)
    if count < FEWEST_LOOKS:
        ends.append(began + lag)
    return max(ends)
