"""Single fields of a PiAPI task, turned into Ringback's own form. Nothing here raises: an invalid field is dropped."""

import math
import re
from datetime import UTC, datetime
from typing import Any

import orjson

from models import TaskStatus
from receiver.providers.base import MalformedUpdate
from receiver.providers.piapi.bodies import read_body

STATUSES = {
    "staged": TaskStatus.STAGED,
    "pending": TaskStatus.PENDING,
    "processing": TaskStatus.PROCESSING,
    "running": TaskStatus.PROCESSING,
    "starting": TaskStatus.PROCESSING,
    "retry": TaskStatus.PROCESSING,
    "in_progress": TaskStatus.PROCESSING,
    "completed": TaskStatus.COMPLETED,
    "success": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
    "canceled": TaskStatus.CANCELLED,
}
"""PiAPI's status words, documented and observed; any other word is not terminal.

Source: `receiver/providers/piapi/CONTRACT.md`, "Status".
"""

LONGEST_WORD = 64
LONGEST_NAME = 200
_PERCENT = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*%?\s*")
_PROGRESS_IN_OUTPUT = ("percent", "progress", "task_progress")


def read_status(word: str) -> tuple[TaskStatus | None, str]:
    """Return (status, "") for a known word, else (None, the word in lower case and bounded)."""
    word = word.strip().lower()
    status = STATUSES.get(word)
    return status, "" if status else word[:LONGEST_WORD]


def read_name(value: Any) -> str | None:
    """Return a model's or task type's name, bounded; None if it is not a text or is empty."""
    return value[:LONGEST_NAME] if isinstance(value, str) and value else None


def read_input(value: Any) -> Any:
    """Return the input; a JSON object that is quoted as a text is parsed."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        parsed = read_body(value.encode())
    except MalformedUpdate:
        return value
    return parsed if isinstance(parsed, dict) else value


def read_progress(task: dict[str, Any]) -> int:
    """Return the greatest percentage that the task or its output names, from 0 to 100; 0 if they name none."""
    output = task.get("output")
    values = [task.get("progress")]
    if isinstance(output, dict):
        values += [output.get(name) for name in _PROGRESS_IN_OUTPUT]
    return max(map(_percent, values))


def read_meta(task: dict[str, Any]) -> dict[str, Any] | None:
    """Return `meta`, or the older `metadata` with its quotas also as `usage`."""
    meta = task.get("meta") or task.get("metadata")
    if not isinstance(meta, dict):
        return None
    if "usage" not in meta and ("quota_frozen" in meta or "quota_usage" in meta):
        return {**meta, "usage": {"frozen": meta.get("quota_frozen"), "consume": meta.get("quota_usage")}}
    return meta


def read_time(value: Any) -> datetime | None:
    """Return an RFC 3339 time in UTC, cut to microseconds; None for Go's zero time, which means "not yet"."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year > 1 else None


def read_error(value: Any, *, failed: bool) -> dict[str, Any] | None:
    """Return {code, message, raw_message, detail}, or None if there is no error.

    Code 0 means no error, whatever the texts are; only for a task that failed are the texts kept nevertheless.
    """
    if isinstance(value, str):
        value = {"message": value}
    if not isinstance(value, dict):
        return None
    error = {
        "code": _scalar(value.get("code")),
        "message": _text(value.get("message")),
        "raw_message": _text(value.get("raw_message")),
        "detail": value.get("detail"),
    }
    has_text = bool(error["message"] or error["raw_message"])
    if _is_code(error["code"]) or (has_text and (failed or error["code"] in (None, ""))):
        return error
    return None


def _is_code(code: Any) -> bool:
    return code not in (None, "", 0, "0", False)


def _scalar(value: Any) -> int | float | str | None:
    return value if isinstance(value, int | float | str) else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if value else ""


def _percent(value: Any) -> int:
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value)
        value = float(match[1]) if match else 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return int(min(max(value, 0), 100))
