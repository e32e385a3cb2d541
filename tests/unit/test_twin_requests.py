"""A twin answers whatever JSON it is sent, as its provider would: with a refusal, never with a fault of its own."""

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.sandbox import create_sandbox
from receiver.sandbox.script import SandboxOptions
from tests.fakes.declared import description_of

BATCH = {"input_config": {"file_name": "files/abc"}, "webhookConfig": {"uris": ["http://127.0.0.1:1/"]}}
STEPS = [{"id": "one", "action": "brands.extract"}]
CREATES: dict[str, dict[str, Any]] = {
    "/fal/fal-ai/flux/dev": {"prompt": "a cat", "sandbox": {}},
    "/gemini/v1beta/models/m:predictLongRunning": {"instances": [{"prompt": "a cat"}], "webhookConfig": {"uris": []}},
    "/gemini/v1beta/models/m:batchGenerateContent": {"batch": BATCH},
    "/gemini/v1beta/interactions": {"background": True, "input": "a cat", "model": "m", "webhook_config": {}},
    "/openai/v1/responses": {"background": True, "model": "m", "input": "a cat", "metadata": {}, "sandbox": {}},
    "/openai/v1/batches": {"input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h"},
    "/pi/api/v1/runs": {"steps": STEPS},
    "/pi/api/v1/webhooks": {"endpoint_url": "http://127.0.0.1:1/", "secret": "Qm4-tZ8vLp"},
    "/pi/api/v1/brands/extract": {"url": "http://127.0.0.1:1/", "sandbox": {}},
    "/replicate/v1/predictions": {"version": "v", "input": {"sandbox": {}}, "webhook": "", "webhook_events_filter": []},
    "/minimaxh3/v2/video_generation": {"model": "m", "content": [], "callback_url": ""},
}
HEADERS = {"authorization": "Bearer key", "x-goog-api-key": "key"}
FAL_HEADERS = {"authorization": "Key key"}
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(("", "x")),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(("x", "uris", "outcome", "input_config", "file_name")), inner, max_size=2)
    ),
    max_leaves=4,
)


def bodies(valid: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return what has something odd in the place of one of the members, or of the whole."""
    one = st.builds(lambda name, odd: {**valid, name: odd}, st.sampled_from([*valid, "sandbox"]), ODD)
    return one | ODD


@pytest.mark.parametrize("path", CREATES)
async def test_a_twin_takes_what_is_right(path: str) -> None:
    assert await status(path, CREATES[path]) in (200, 201, 202)


@pytest.mark.parametrize("path", CREATES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_twin_has_no_fault_of_its_own(path: str, data: st.DataObject) -> None:
    assert 200 <= asyncio.run(status(path, data.draw(bodies(CREATES[path])))) < 500


async def status(path: str, body: Any) -> int:
    app = create_sandbox(SandboxOptions(), [description_of("minimaxh3")])
    # The transport raises what the application raises.
    headers = FAL_HEADERS if path.startswith("/fal/") else HEADERS
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://twin", headers=headers) as client:
        return (await client.post(path, json=body)).status_code


@pytest.mark.parametrize("query", ["created_after=never", "cursor=x"])
async def test_a_list_that_is_asked_for_wrongly_is_refused(query: str) -> None:
    transport = httpx.ASGITransport(create_sandbox(SandboxOptions()))
    async with httpx.AsyncClient(transport=transport, base_url="http://twin", headers=HEADERS) as client:
        assert (await client.get(f"/replicate/v1/predictions?{query}")).status_code == 422


async def test_a_form_with_a_name_that_is_no_text_is_read() -> None:
    app = create_sandbox(SandboxOptions(), [description_of("stability")])
    form = b'--x\r\ncontent-disposition: form-data; name="\xff"; filename="\xfe"\r\n\r\na\r\n--x--\r\n'
    headers = {**HEADERS, "content-type": "multipart/form-data; boundary=x"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://twin", headers=headers) as client:
        answer = await client.post("/stability/v2beta/stable-image/upscale/creative", content=form)
    assert answer.status_code == 200
