"""Makes updates of what providers report, in Ringback's own form."""

import re
from typing import Any

from models import TaskStatus
from receiver.domain.outputs import normalise_output
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import fields, reasons
from receiver.providers.base import MalformedUpdate
from receiver.providers.calls import LONGEST_RETRY_AFTER

LONGEST_ID = 200
_LONGEST_WORD = 64
_SECONDS = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s?", re.ASCII)


def report(status: TaskStatus | None, **more: Any) -> ProviderUpdate:
    """Return an update; `output` is the provider's own. Who reads it sets its source and attempt."""
    output = normalise_output(more.pop("output", None)) or None
    return ProviderUpdate(source=Source.POLL, status=status, output=output, **more)


def failure(code: Any, value: Any, *, detail: Any = None) -> dict[str, Any]:
    """Return the error of a failed task: its words are found in `value`, whatever form that has."""
    words = reasons.words_of(value) or reasons.texts_of(value) or reasons.NO_REASON
    kept = value if detail is None and not isinstance(value, str) else detail
    is_code = isinstance(code, int | str) and not isinstance(code, bool) and code != ""
    return {"code": code if is_code else None, "message": words, "raw_message": "", "detail": kept or None}


def status_of(word: Any, words: dict[str, TaskStatus]) -> tuple[TaskStatus | None, str]:
    """Return (status, "") for one of a provider's words, else (None, the word in lower case and bounded).

    Case does not count. A word that is unknown is never an end.
    """
    text = word.strip().lower() if isinstance(word, str) else str(word).lower()
    status = words.get(text)
    return status, "" if status else text[:_LONGEST_WORD]


def object_of(value: Any) -> dict[str, Any]:
    """Return a JSON object. Raises `MalformedUpdate` for anything else."""
    if not isinstance(value, dict):
        raise MalformedUpdate("the body is not a JSON object")
    return value


def id_of(value: dict[str, Any], name: str) -> str:
    """Return a task's id in an object. Raises `MalformedUpdate` if there is none."""
    return checked_id(value.get(name), name)


def checked_id(value: Any, name: str) -> str:
    """Return a task's id, which is at `name` in an answer. Raises `MalformedUpdate` for what can be none."""
    found = fields.read_task_id(value)
    if not found:
        raise MalformedUpdate(f"{name} must be a text that is not empty, or a whole number")
    if len(found) > LONGEST_ID:
        raise MalformedUpdate(f"{name} may have at most {LONGEST_ID} characters")
    return found


def told_wait(value: Any) -> float | None:
    """Return the seconds after which the JSON of a refusal says to ask again; None if it does not say so.

    It is `retry_after` in the body, or the `retryDelay` of Google's errors.
    """
    error = value.get("error") if isinstance(value, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    told = [each.get("retryDelay") for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    told.append(value.get("retry_after") if isinstance(value, dict) else None)
    found = (_SECONDS.fullmatch(str(each)) for each in told if each is not None)
    return next((min(float(each[1]), LONGEST_RETRY_AFTER) for each in found if each is not None), None)
