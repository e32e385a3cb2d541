"""Reads what Gemini answers about its operations, interactions and batches, as updates.

Source of the rules: `receiver/providers/CONTRACTS.md`, "Gemini".
"""

import re
from typing import Any, TypeGuard
from urllib.parse import parse_qsl, urlencode, urlsplit

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers import fields
from receiver.providers.reports import failure, report, status_of

BASE_URL = "https://generativelanguage.googleapis.com"
NAME = re.compile(r"[\w~-][\w.~-]*(?:/[\w~-][\w.~-]*){0,5}", re.ASCII)
"""A task's name. No part of it begins with a dot, so that it leads nowhere else."""
OPERATION = re.compile(r"(?:.+/)?operations/.+")
BATCH = "batches/"
_INTERACTION_WORDS = {
    "queued": TaskStatus.PENDING,
    "in_progress": TaskStatus.PROCESSING,
    "completed": TaskStatus.COMPLETED,
    "requires_action": TaskStatus.COMPLETED,  # the caller's turn, in another interaction
    "failed": TaskStatus.FAILED,
    "incomplete": TaskStatus.FAILED,
    "budget_exceeded": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
}
_BATCH_WORDS = {
    "pending": TaskStatus.PENDING,
    "running": TaskStatus.PROCESSING,
    "cancelling": TaskStatus.PROCESSING,
    "succeeded": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "expired": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
}
_STATE_PREFIX = re.compile(r"(?:batch|job)_state_", re.IGNORECASE)


def is_text(value: Any) -> TypeGuard[str]:
    """Return whether a value is a text."""
    return isinstance(value, str)


def read_task(name: str, body: dict[str, Any]) -> ProviderUpdate:
    """Return what is told of the operation, interaction or batch of this name."""
    if name.startswith(BATCH):
        return _batch(name, body)
    return _operation(name, body) if OPERATION.fullmatch(name) else _interaction(name, body)


def _operation(name: str, body: dict[str, Any]) -> ProviderUpdate:
    """Return a long-running operation. One that is done may have neither an error nor a result: it was filtered."""
    if body.get("done") is not True:
        is_begun = isinstance(body.get("metadata"), dict) or body.get("done") is False
        return report(TaskStatus.PROCESSING if is_begun else TaskStatus.PENDING, provider_task_id=name)
    error = body.get("error")
    if isinstance(error, dict):
        return report(TaskStatus.FAILED, provider_task_id=name, error=failure(error.get("code"), error))
    response = body.get("response")
    given = response if isinstance(response, dict) else {}
    inner = given.get("generateVideoResponse")
    result = {key: value for key, value in (inner if isinstance(inner, dict) else given).items() if key != "@type"}
    videos = _videos(result.get("generatedSamples"))
    if videos:
        output = {"videos": videos, **{key: value for key, value in result.items() if key != "generatedSamples"}}
        return report(TaskStatus.COMPLETED, provider_task_id=name, output=output)
    if result and "raiMediaFilteredCount" not in result and "raiMediaFilteredReasons" not in result:
        return report(TaskStatus.COMPLETED, provider_task_id=name, output=result)
    words = result.get("raiMediaFilteredReasons") or "the operation ended without a result"
    code = "filtered" if result else "no_result"
    return report(TaskStatus.FAILED, provider_task_id=name, error=failure(code, words, detail=result or None))


def _videos(samples: Any) -> list[str]:
    """Return the addresses of the videos, without a key."""
    listed = samples if isinstance(samples, list) else []
    videos = [each.get("video") for each in listed if isinstance(each, dict)]
    return [_without_key(each["uri"]) for each in videos if isinstance(each, dict) and is_text(each.get("uri"))]


def _without_key(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""  # no address
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if all(name != "key" for name, _ in pairs):
        return url
    return parts._replace(query=urlencode([pair for pair in pairs if pair[0] != "key"])).geturl()


def _interaction(name: str, body: dict[str, Any]) -> ProviderUpdate:
    status, word = status_of(body.get("status"), _INTERACTION_WORDS)
    error = None
    if status == TaskStatus.FAILED:
        errors = body.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        error = failure(first.get("code") or body.get("status"), errors or f"the interaction is {body.get('status')}")
    return report(
        status,
        word=word,
        provider_task_id=name,
        output=_steps(body),
        error=error,
        meta={"usage": body["usage"]} if isinstance(body.get("usage"), dict) else None,
        created_at=fields.read_time(body.get("created")),
    )


def _steps(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the steps of an interaction as they are, with their text put together; older ones have `outputs`."""
    found = {key: body[key] for key in ("steps", "outputs") if isinstance(body.get(key), list) and body[key]}
    steps = [step for step in found.get("steps", []) if isinstance(step, dict) and step.get("type") == "model_output"]
    contents = [step["content"] for step in steps if isinstance(step.get("content"), list)]
    parts = [part for content in contents for part in content if isinstance(part, dict) and part.get("type") == "text"]
    text = "".join(part["text"] for part in parts if is_text(part.get("text")))
    return {"output_text": text, **found} if text else found or None


def _batch(name: str, body: dict[str, Any]) -> ProviderUpdate:
    given = body.get("metadata")
    metadata = given if isinstance(given, dict) else {}
    status, word = status_of(_STATE_PREFIX.sub("", str(metadata.get("state") or "pending")), _BATCH_WORDS)
    output, is_all_failed = _answers(metadata.get("output"), body.get("response"))
    error = None
    if isinstance(body.get("error"), dict) or status == TaskStatus.FAILED:
        status = TaskStatus.FAILED
        found = body.get("error") or metadata.get("error") or f"the batch is {metadata.get('state')}"
        error = failure(found.get("code") if isinstance(found, dict) else None, found)
    elif status == TaskStatus.COMPLETED and is_all_failed:
        status, error = TaskStatus.FAILED, failure("requests_failed", "all requests of the batch failed")
    return report(
        status,
        word=word,
        provider_task_id=name,
        output=output,
        error=error,
        created_at=fields.read_time(metadata.get("createTime")),
        ended_at=fields.read_time(metadata.get("endTime")),
    )


def _answers(*places: Any) -> tuple[dict[str, Any] | None, bool]:
    """Return the answers of a batch, or the file that they are in, and whether each of them is an error."""
    for place in places:
        if not isinstance(place, dict):
            continue
        inner = place.get("inlinedResponses")
        listed = inner.get("inlinedResponses") if isinstance(inner, dict) else None
        if isinstance(listed, list):
            failed = [isinstance(each, dict) and "error" in each for each in listed]
            return {"responses": listed}, bool(failed) and all(failed)
        file = place.get("responsesFile")
        if is_text(file) and NAME.fullmatch(file):
            url = f"{BASE_URL}/v1beta/{file}:download?alt=media"
            return {"responses_file": file, "responses_file_url": url}, False
    return None, False
