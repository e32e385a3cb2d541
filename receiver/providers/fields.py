"""Single fields of a provider's task, turned into Ringback's own form. Nothing raises: what is invalid is dropped.

They are in PiAPI's form, in which the models of many makers come, so that most of it holds for other providers too.
"""

import re
from datetime import UTC, datetime
from typing import Any

from models import TaskStatus
from receiver.providers import reasons
from receiver.providers.base import MalformedUpdate
from receiver.providers.lenient_json import read_json

_WORDS = {
    TaskStatus.STAGED: "staged",
    TaskStatus.PENDING: "pending queued queue in_queue queueing queuing enqueued waiting wait submitted created"
    " accepted received scheduled new init initialized not_started not_start",
    TaskStatus.PROCESSING: "processing process running run starting started retry retrying in_progress in_process"
    " generating rendering working executing active ongoing preparing preprocessing postprocessing uploading"
    " downloading finalizing streaming training",
    TaskStatus.COMPLETED: "completed complete success successful succeeded succeed done finished finish ok",
    TaskStatus.FAILED: "failed failure fail error errored rejected expired timeout timed_out aborted crashed"
    " terminated killed",
    TaskStatus.CANCELLED: "cancelled canceled user_cancelled user_canceled cancelled_by_user canceled_by_user"
    " aborted_by_user",
}
STATUSES = {re.sub("_", "", word): status for status, words in _WORDS.items() for word in words.split()}
"""PiAPI's status words and plain synonyms of them, without case, blanks, hyphens and underscores.

Any other word is not terminal. Source: `receiver/providers/piapi/CONTRACT.md`, "Status".
"""

_STATUS_NAMES = ("task_status", "taskStatus", "state", "job_status", "jobStatus")
"""Where a task without a `status` may have it."""
LONGEST_WORD = 64
LONGEST_NAME = 200
LONGEST_NUMBER = 40
"""Digits of an id that is a number."""
_SEPARATORS = re.compile(r"[\W_]+")
_PREFIX = re.compile(r"^(?:task|job)?(?:status|state)|^(?:task|job)")
_PERCENT = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*%?\s*")
_NUMBER = re.compile(r"\d{9,19}(?:\.\d{1,9})?")
_EARLIEST = 100_000_000
"""Seconds since 1970. A smaller number is a duration or a placeholder, and as milliseconds the same time is 1e11."""
_ERROR_NAMES = frozenset({"code", "message", "raw_message", "detail"})
ENVELOPE_NAMES = (
    frozenset({"task_id", "taskId", "id", "model", "task_type", "type", "object", "status", *_STATUS_NAMES})
    | {"config", "webhook_config", "service_mode", "input", "output", "prompt", "meta", "metadata", "usage", "logs"}
    | {"progress", "percent", "attempt", "retries", "priority", "queue_position", "position", "eta", "provider"}
    | {"created_at", "started_at", "ended_at", "updated_at", "finished_at", "timestamp", "createTime", "updateTime"}
    | {"code", "success", "user_id", "userId", "account_id", "account_name", "is_using_private_pool", "version"}
    | reasons.REASON_NAMES
    | set(reasons.CODE_FIELDS)
)
"""Fields of a task that are not its output. What else stands beside the output belongs to it.

Source: `receiver/providers/piapi/CONTRACT.md`, "The older envelope".
"""
_PROGRESS_IN_OUTPUT = ("percent", "progress", "task_progress")


def read_status(word: Any) -> tuple[TaskStatus | None, str]:
    """Return (status, "") for a known word, else (None, the word in lower case and bounded).

    Case, blanks, hyphens and underscores do not count, nor does a prefix such as `TASK_STATUS_`. What is not a text is
    an unknown word: no number is a task's status.
    """
    text = word if isinstance(word, str) else _json(word)
    text = text.strip().lower()[:LONGEST_WORD]
    plain = _SEPARATORS.sub("", text) if isinstance(word, str) else ""
    status = STATUSES.get(plain) or STATUSES.get(_PREFIX.sub("", plain))
    return status, "" if status else text


def read_task_status(task: dict[str, Any]) -> tuple[TaskStatus | None, str]:
    """Return `read_status` of a task's `status`; without a text there, of another field that names a known status."""
    given = task.get("status")
    if not (isinstance(given, str) and given.strip()):
        others = (read_status(task[name]) for name in _STATUS_NAMES if isinstance(task.get(name), str))
        known = next((each for each in others if each[0] is not None), None)
        if known is not None:
            return known
    return read_status(given)


def read_task_id(value: Any) -> str:
    """Return a task's id, "" if it is none: a text, or a whole number above zero, as some write it (`7.0` too)."""
    if isinstance(value, float) and value.is_integer() and value < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**LONGEST_NUMBER:
        return str(value)
    return value if isinstance(value, str) else ""


def read_name(value: Any) -> str | None:
    """Return a model's or task type's name, bounded; None if it is not a text or is empty."""
    return value[:LONGEST_NAME] if isinstance(value, str) and value else None


def read_input(value: Any) -> Any:
    """Return the input; a JSON object that is quoted as a text is parsed."""
    parsed = _parsed(value)
    return parsed if isinstance(parsed, dict) else value


def read_output(value: Any) -> Any:
    """Return the output; a JSON object or list that is quoted as a text, as some models do, is parsed."""
    return _parsed(value)


def read_beside(task: dict[str, Any]) -> dict[str, Any]:
    """Return what stands beside the output and belongs to it, as `works` and `clips` in the older envelope."""
    return {name: value for name, value in task.items() if name not in ENVELOPE_NAMES}


def read_config(value: Any) -> dict[str, Any] | None:
    """Return the config, without a `webhook_config` that is not an object; None if it is not an object itself."""
    if not isinstance(value, dict):
        return None
    if "webhook_config" in value and not isinstance(value["webhook_config"], dict):
        return {name: item for name, item in value.items() if name != "webhook_config"}
    return value


def read_progress(task: dict[str, Any]) -> int:
    """Return the greatest percentage that the task or its output names, from 0 to 100; 0 if they name none."""
    output = task.get("output")
    values = [task.get("progress")]
    if isinstance(output, dict):
        values += [output.get(name) for name in _PROGRESS_IN_OUTPUT]
    return max((_percent(value) for value in values if value is not None), default=0)


def read_meta(task: dict[str, Any]) -> dict[str, Any] | None:
    """Return `meta`, or the older `metadata` with its quotas also as `usage`."""
    meta = task.get("meta") or task.get("metadata")
    if not isinstance(meta, dict):
        return None
    if "usage" not in meta and ("quota_frozen" in meta or "quota_usage" in meta):
        return {**meta, "usage": {"frozen": meta.get("quota_frozen"), "consume": meta.get("quota_usage")}}
    return meta


def read_time(value: Any) -> datetime | None:
    """Return a time in UTC, cut to microseconds; None for Go's zero time, which means "not yet", and for no time.

    A time is an RFC 3339 text, without an offset in UTC, or the seconds or milliseconds since 1970 as a number or text.
    """
    if isinstance(value, str):
        text = value.strip()
        if not (text[:9].isdecimal() and _NUMBER.fullmatch(text)):
            return _iso_time(text)
        value = float(text)
    return _unix_time(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_error(task: dict[str, Any], status: TaskStatus | None) -> dict[str, Any] | None:
    """Return a task's error as {code, message, raw_message, detail}, or None if it has none.

    A failed task has one always; its words are taken from wherever the provider put them, and what they are from is
    kept whole in `detail` unless it is just the message. An unfinished or completed task has one only if its `error`
    says so: code 0 means no error, whatever the texts are.
    """
    failed = status == TaskStatus.FAILED
    error = _given_error(task.get("error"), failed=failed)
    if error is not None and error["message"]:
        return error
    words, origin = reasons.reason_of(task, failed=failed) if failed or status is None else ("", None)
    if error is None and not words and not failed:
        return None
    error = error or {"code": _scalar(reasons.code_of(task)), "message": "", "raw_message": "", "detail": None}
    error["message"] = words or (reasons.NO_REASON if failed else "")
    if error["detail"] is None and origin != words:
        error["detail"] = origin
    return error


def _given_error(value: Any, *, failed: bool) -> dict[str, Any] | None:
    """Return the error that the field `error` has, None if it has none."""
    if not isinstance(value, dict):
        words, code = reasons.words_of(value), None if isinstance(value, str | list) else _scalar(value)
        if not words and not _is_code(code):
            return None
        return {
            "code": code,
            "message": words,
            "raw_message": "",
            "detail": value if words and words != value else None,
        }
    code = _scalar(value.get("code"))
    if not failed and not _is_code(code) and code not in (None, ""):
        return None
    given, raw_message = reasons.as_text(value.get("message")), reasons.as_text(value.get("raw_message"))
    message = reasons.words_of(value.get("message")) or reasons.words_of(given) or reasons.words_of(value)
    message = message or (reasons.texts_of(value) if failed else "")
    if not _is_code(code) and not message:
        return None
    is_all = set(value) <= _ERROR_NAMES and message in (given.strip(), raw_message.strip())
    detail = value.get("detail") if is_all or not message else value
    return {"code": code, "message": message, "raw_message": raw_message, "detail": detail}


def _iso_time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year > 1 else None


def _unix_time(number: float) -> datetime | None:
    """Return the time of a number of seconds or milliseconds; None for what would be before 1973 or after 5138."""
    if not _EARLIEST <= number < _EARLIEST * 1_000_000:  # also false for NaN
        return None
    seconds = number if number < _EARLIEST * 1000 else number / 1000
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        parsed = read_json(value.encode("utf-8", "replace"))
    except MalformedUpdate:
        return value
    return parsed if isinstance(parsed, dict | list) else value


def _is_code(code: Any) -> bool:
    return code not in (None, "", 0, "0", False)


def _scalar(value: Any) -> int | float | str | None:
    return value if isinstance(value, int | float | str) else None


def _json(value: Any) -> str:
    return reasons.as_text(value) if value is None or isinstance(value, list | dict) else str(value).lower()


def _percent(value: Any) -> int:
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value)
        value = float(match[1]) if match else 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # NaN alone differs from itself
        return 0
    return int(min(max(value, 0), 100))
