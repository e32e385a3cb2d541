"""Twins of declared providers that take forms and answer with files."""

from typing import Any

import httpx
import pytest

from receiver.sandbox import SandboxOptions, create_sandbox
from tests.fakes.declared import description_of

KEYS = {"stability": {"authorization": "Bearer k"}, "elevenlabs": {"xi-api-key": "k"}}
CREATE = {"stability": "/v2beta/stable-image/upscale/creative", "elevenlabs": "/v1/dubbing"}
FORM: Any = {"prompt": (None, "a cat"), "image": ("a.png", b"\r\n--x", "image/png")}


def client_of(name: str) -> httpx.AsyncClient:
    app = create_sandbox(SandboxOptions(duration=60), [description_of(name)])
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url=f"http://sandbox/{name}", headers=KEYS[name])


async def advanced(client: httpx.AsyncClient, task: str, status: str) -> None:
    answer = await client.post(f"http://sandbox/sandbox/tasks/{task}/advance", json={"status": status})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", KEYS)
async def test_a_form_is_taken_and_json_is_refused(name: str) -> None:
    async with client_of(name) as client:
        refused = await client.post(CREATE[name], json={"prompt": "a cat"})
        assert refused.status_code == 400
        assert "multipart/form-data" in refused.text
        assert (await client.post(CREATE[name], files=FORM)).status_code == 200
        (task,) = (await client.get("http://sandbox/sandbox/tasks")).json()["tasks"]
        assert task["status"] in ("staged", "pending", "processing")


async def test_a_script_comes_in_a_field_of_the_form() -> None:
    async with client_of("stability") as client:
        form = {**FORM, "sandbox": (None, '{"submit": "refuse"}')}
        assert (await client.post(CREATE["stability"], files=form)).status_code == 422


async def test_a_look_is_answered_with_202_and_then_with_the_file() -> None:
    async with client_of("stability") as client:
        task = (await client.post(CREATE["stability"], files=FORM)).json()["id"]
        waiting = await client.get(f"/v2beta/results/{task}")
        assert (waiting.status_code, waiting.json()["status"]) == (202, "in-progress")
        await advanced(client, task, "completed")
        done = await client.get(f"/v2beta/results/{task}")
        assert (done.status_code, done.headers["content-type"]) == (200, "image/png")
        assert (done.headers["finish-reason"], done.content[:4]) == ("SUCCESS", b"\x89PNG")


async def test_a_download_is_there_once_the_task_has_ended() -> None:
    async with client_of("elevenlabs") as client:
        task = (await client.post(CREATE["elevenlabs"], files=FORM)).json()["dubbing_id"]
        path = f"/v1/dubbing/{task}/audio/es"
        assert (await client.get(path)).status_code == 425
        await advanced(client, task, "completed")
        assert (await client.get(path)).headers["content-type"] == "video/mp4"
        assert (await client.get("/v1/dubbing/none/audio/es")).status_code == 404
