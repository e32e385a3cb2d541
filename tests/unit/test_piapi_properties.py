"""Any bytes and any JSON, read as a PiAPI task, are an update that can be stored, or `MalformedUpdate`."""

from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.providers import MalformedUpdate
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PIAPI = PiAPI(base_url="http://127.0.0.1:9", api_key=None, timeout=1, rate_limiter=RateLimiter(1))
NAMES = st.sampled_from(
    (
        *("data", "task_id", "status", "output", "works", "error", "code", "message", "meta", "metadata", "input"),
        *("created_at", "progress", "percent", "config", "webhook_config", "secret", "logs", "detail", "usage"),
    )
)
WORDS = st.sampled_from(["completed", "failed", "\0", "\ud800", '{"a": {"b": "\\u0000"}}', "0001-01-01T00:00:00Z"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=8),
    max_leaves=40,
)


@PATIENT
@given(body=st.binary() | st.binary().map(lambda rest: b'{"data":{"task_id":"a","status":"' + rest + b'"}}'))
def test_any_bytes_are_an_update_or_malformed(body: bytes) -> None:
    PIAPI.redact(body)
    try:
        update = PIAPI.parse_webhook(body)
    except MalformedUpdate:
        return
    assert update.provider_task_id


@PATIENT
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
