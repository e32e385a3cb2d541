"""Any bytes and any JSON, read as a PiAPI task, are an update that can be stored, or `MalformedUpdate`."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from models import TaskStatus
from receiver.domain.updates import Source
from receiver.providers import MalformedUpdate
from receiver.providers.piapi import PiAPI
from receiver.providers.piapi.tasks import read_task
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.reasons import LONGEST_WORDS

PIAPI = PiAPI(base_url="http://127.0.0.1:9", api_key=None, timeout=1, rate_limiter=RateLimiter(1))
NAMES = st.sampled_from(
    (
        *("data", "task_id", "status", "output", "works", "error", "code", "message", "meta", "metadata", "input"),
        *("created_at", "progress", "percent", "config", "webhook_config", "secret", "logs", "detail", "usage"),
        *("clips", "songs", "video", "url", "image_url", "content_type", "task", "title", "fail_reason", "loc", "msg"),
    )
)
WORDS = st.sampled_from(
    [
        "completed",
        "failed",
        "success",
        "https://e.com/a.mp4",
        '["https://e.com/b"]',
        "1724511853",
        "\0",
        "\ud800",
        '{"a": {"b": "\\u0000"}}',
        "0001-01-01T00:00:00Z",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=8),
    max_leaves=40,
)


@given(body=st.binary() | st.binary().map(lambda rest: b'{"data":{"task_id":"a","status":"' + rest + b'"}}'))
def test_any_bytes_are_an_update_or_malformed(body: bytes) -> None:
    PIAPI.redact(body)
    try:
        update = PIAPI.parse_webhook(body)
    except MalformedUpdate:
        return
    assert update.provider_task_id


@given(task=st.dictionaries(NAMES, JSON, max_size=12))
def test_any_json_is_an_update_or_malformed(task: dict[str, Any]) -> None:
    for candidate in (task, {**task, "task_id": "a", "status": "completed"}):
        try:
            update = PIAPI.parse_task(candidate)
        except MalformedUpdate:
            continue
        assert 0 <= update.progress <= 100
        assert "\0" not in update.word
        stored = orjson.dumps([update.output, update.error, update.logs, update.meta, update.input, update.detail])
        assert b"\\u0000" not in stored.replace(b"\\\\", b"")


@given(task=st.dictionaries(NAMES | st.text(), JSON, max_size=12), task_id=JSON, source=st.sampled_from(Source))
def test_any_json_with_a_task_id_is_an_update_that_can_be_stored_or_malformed(
    task: dict[str, Any], task_id: Any, source: Source
) -> None:
    for body in ({**task, "task_id": task_id}, {**task, "task_id": "a"}, {"data": {**task, "task_id": "a"}}):
        try:
            strict = orjson.loads(orjson.dumps(body))
        except (orjson.JSONEncodeError, orjson.JSONDecodeError):
            continue
        try:
            update = read_task(strict, source=source)
        except MalformedUpdate:
            assert strict.get("task_id") != "a" or isinstance(strict.get("data"), dict)
            continue
        content = [update.output, update.error, update.logs, update.meta, update.input, update.detail, update.config]
        assert orjson.dumps(content)
        assert update.status != TaskStatus.FAILED or (update.error and update.error["message"])
        assert len((update.error or {}).get("message", "")) <= LONGEST_WORDS
