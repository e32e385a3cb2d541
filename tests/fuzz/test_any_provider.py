"""A provider that answers anything at all leaves no task without an end, and makes the service answer no 500."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from models import TERMINAL
from tests.fakes.inbound import hook_secret
from tests.fakes.servers import served
from tests.fakes.world import World, in_process

Answer = tuple[int, dict[str, str], bytes]

SHORT: dict[str, Any] = {
    "task_timeout_seconds": "0.5",
    "task_limit_seconds": "0.5",
    "poll_first_seconds": "0.05",
    "poll_max_seconds": "0.1",
    "submission_unknown_seconds": "0.3",
    "provider_timeout_seconds": "1",
    "submit_wait_seconds": "0.5",
    "missing_seconds": "0",
}
"""Every time after which a task must have ended, made so short that a test can wait for it."""
MANY = settings(
    max_examples=15,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TASK_NAMES = (
    "task_id", "model", "task_type", "status", "config", "input", "output", "meta", "logs", "error", "detail",
    "progress", "works", "metadata", "message", "clips",
)  # fmt: skip
WORDS = ("completed", "failed", "processing", "pending", "cancelled", "Success", "quarantined", "", "99", "expired")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1")

texts = st.text(max_size=12) | st.sampled_from(["https://x.example/a.png", "\ud83d", "a\0b", "0001-01-01T00:00:00Z"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a provider's task, of which some fields are anything."""
    task = {"task_id": draw(st.sampled_from(["pt-1", "pt-2", 17])), "status": draw(st.sampled_from(WORDS))}
    odd = draw(st.dictionaries(st.sampled_from(TASK_NAMES), documents, max_size=4))
    return {**task, **odd}


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    task = draw(tasks())
    value = draw(
        st.sampled_from([{"code": 200, "data": task, "message": "success"}, {"timestamp": 1, "data": task}, task])
        | st.just({"code": 200, "data": {"data": [task, draw(documents)], "total": 1}})
        | st.just({"code": draw(st.integers(0, 1200)), "message": draw(texts)})
        | documents
    )
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    body = text.encode(draw(st.sampled_from(ENCODINGS)), draw(st.sampled_from(["replace", "backslashreplace"])))
    if draw(st.booleans()):
        return body
    cut = draw(st.integers(0, len(body)))
    return body[:cut] + draw(st.binary(max_size=3)) + body[cut:]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    status = draw(st.sampled_from([200] * 6 + [201, 204, 302, 400, 401, 402, 404, 410, 422, 429, 500, 502, 503, 524]))
    headers = {
        "content-type": draw(st.sampled_from(["application/json", "text/html", "", "application/json; charset=x"]))
    }
    body = draw(bodies())
    match draw(st.sampled_from(["plain", "plain", "gzip", "not gzip", "later"])):
        case "gzip":
            headers["content-encoding"], body = "gzip", gzip.compress(body)
        case "not gzip":
            headers["content-encoding"] = draw(st.sampled_from(["gzip", "deflate", "br"]))
        case "later":
            headers["retry-after"] = draw(st.sampled_from(["0", "-1", "soon", "1e999", "nan", "0.05"]))
    return status, headers, b"" if status in (204, 304) else body


scripts = st.lists(answers(), min_size=1, max_size=4)


@asynccontextmanager
async def provider_of(script: list[Answer]) -> AsyncIterator[str]:
    """Serve a provider that gives the answers of a script, again and again, whatever it is asked."""
    following: Iterator[Answer] = cycle(script)

    async def answer(_: Request) -> Response:
        status, headers, body = next(following)
        return Response(body, status, {name: value for name, value in headers.items() if value})

    methods = ["GET", "POST", "DELETE"]
    async with served(Starlette(routes=[Route("/{path:path}", answer, methods=methods)])) as url:
        yield url


async def post_webhook(world: World, task_id: str, sent: Answer) -> int:
    _, headers, body = sent
    kept = {name: value for name, value in headers.items() if value and name != "retry-after"}
    answer = await world.provider.post(
        f"{world.base}/hooks/piapi/{task_id}",
        content=body,
        headers={**kept, "x-webhook-secret": hook_secret(world, task_id)},
    )
    return answer.status_code


async def scenario(folder: Path, script: list[Answer], webhooks: list[Answer]) -> None:
    async with provider_of(script) as url, in_process(folder, piapi_base_url=url, **SHORT) as world:
        created = await asyncio.gather(*(world.create() for _ in range(3)))
        assert [answer.status_code for answer in created if answer.status_code == 500] == []
        listed = (await world.api.get("/api/v1/tasks")).json()["data"]["data"]
        assert len(listed) == 3
        task_ids = [task["task_id"] for task in listed]
        statuses = [await post_webhook(world, task_ids[0], each) for each in webhooks]
        assert [status for status in statuses if status >= 500] == []
        for task_id in task_ids:
            task = await world.ended(task_id, seconds=20)
            assert task["status"] in TERMINAL
            assert task["error"] is not None or task["status"] != "failed"
            for path in (f"/api/v1/task/{task_id}", f"/api/v1/tasks/{task_id}/events", f"/api/v1/jobs/{task_id}"):
                assert (await world.api.get(path)).status_code == 200
            assert (await world.api.post(f"/api/v1/tasks/{task_id}/refresh")).status_code in (200, 503)


@pytest.mark.long
@pytest.mark.usefixtures("backend", "quick_search")
def test_whatever_a_provider_answers_every_task_ends_without_an_exception() -> None:
    @MANY
    @given(scripts, st.lists(answers(), max_size=3))
    def run(script: list[Answer], webhooks: list[Answer]) -> None:
        with TemporaryDirectory() as folder, capture_logs() as records:
            asyncio.run(scenario(Path(folder), script, webhooks))
        assert [record for record in records if record["log_level"] == "error"] == []

    run()
