"""Any JSON, read as an answer or webhook of any provider's, comes to an outcome, or is `MalformedUpdate`."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.providers import MalformedUpdate
from receiver.providers.api import Request
from receiver.providers.base import NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.outcomes import cancel_outcome, fetch_outcome, found_outcome, result_outcome, submit_outcome
from receiver.providers.registry import APIS
from receiver.providers.reports import told_wait

NAMES = st.sampled_from(
    (
        *("id", "request_id", "name", "status", "output", "error", "errors", "data", "type", "code", "message", "done"),
        *(
            "response",
            "metadata",
            "state",
            "generateVideoResponse",
            "generatedSamples",
            "video",
            "uri",
            "steps",
            "content",
        ),
        *("inlinedResponses", "responsesFile", "request_counts", "failed", "completed", "total", "output_file_id"),
        *("payload", "detail", "details", "reason", "retryDelay", "results", "next", "has_more", "logs", "metrics"),
        *("text", "incomplete_details", "raiMediaFilteredReasons", "created_at", "usage", "ringback_task", "keys", "x"),
    )
)
WORDS = st.sampled_from(
    (
        *(
            "completed",
            "COMPLETED",
            "failed",
            "incomplete",
            "succeeded",
            "BATCH_STATE_SUCCEEDED",
            "cancelled",
            "expired",
        ),
        *("response.completed", "video.generated", "output_text", "message", "model_output", "batch_1", "batches/1"),
        *(
            "models/veo/operations/1",
            "v1_1",
            "http://[",
            "https://e.com/a.mp4?key=k",
            "OK",
            "ERROR",
            "insufficient_quota",
        ),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(), inner, max_size=8),
    max_leaves=30,
)
TASKS = tuple(
    ProviderTask(name, None, "owner/model") for name in ("any", "batch_1", "batches/1", "models/m/operations/1")
)


@pytest.mark.parametrize("name", APIS)
@given(body=JSON, status=st.sampled_from((200, 400, 403, 404, 429, 500)), task=st.sampled_from(TASKS))
@settings(max_examples=150)
def test_any_json_comes_to_an_outcome(name: str, body: Any, status: int, task: ProviderTask) -> None:
    api, answer = APIS[name], CallResponse(status, body, "", None)
    new = NewTask(model="owner/model", task_type="", input={})
    submit_outcome(answer, api, new, "default")
    if isinstance(fetch_outcome(answer, api, task, "default"), Request):
        result_outcome(answer, api, task, answer, "default")
    cancel_outcome(answer, api, "default")
    told_wait(body)
    if api.capabilities.finds:
        found_outcome(answer, api, "reference", "default")
    api.verify(b"{}", [(b"webhook-signature", b"v1a,AAAA")], credentials={}, keys=body, now=0.0)
    with contextlib.suppress(MalformedUpdate):
        api.parse_webhook(body)
