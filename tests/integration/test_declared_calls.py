"""Calls to declared providers over HTTP: forms, files of which the head alone is read, answers that lead elsewhere."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from models import TaskStatus
from receiver.providers.accounts import ProviderAccount
from receiver.providers.adapter import Adapter
from receiver.providers.base import Accepted, Found, NewTask, NoAnswer, ProviderTask, Refused
from receiver.providers.calls import LARGEST_RESPONSE
from receiver.providers.declared.api import DeclaredAPI
from receiver.providers.declared.reading import read_file
from receiver.providers.rate_limiter import RateLimiter
from tests.fakes.declared import EXAMPLES, path_of
from tests.fakes.raw_server import RawServer
from tests.fakes.servers import served

pytestmark = pytest.mark.no_database("only speaks HTTP")

KEY = "planted-key-0123456789abcdef0123456789"
GOOD = (EXAMPLES / "everything.toml").read_text()
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@asynccontextmanager
async def adapter_of(path: Path, server: RawServer, base: str = "") -> AsyncIterator[Adapter]:
    account = ProviderAccount(provider=path.stem, credentials={"api_key": KEY}, base_url=server.url(base))
    adapter = Adapter(DeclaredAPI(read_file(path)), account, timeout=5, rate_limiter=RateLimiter(1000))
    try:
        yield adapter
    finally:
        await adapter.aclose()


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "everything.toml"
    path.write_text(text)
    return path


def answer(body: object, status: int = 200) -> bytes:
    content = orjson.dumps(body)
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(content),
        content,
    )


async def test_a_form_is_sent_with_its_files() -> None:
    async with RawServer(answer({"id": "7"})) as server, adapter_of(path_of("stability"), server) as adapter:
        given = {"image": "data:image/png;base64,iVBORw==", "prompt": "a cat"}
        outcome = await adapter.submit(NewTask(model="stable-image/upscale/creative", task_type="", input=given))
        assert isinstance(outcome, Accepted)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    boundary = re.search(rb"content-type: multipart/form-data; boundary=([0-9a-f]{32})", head, re.IGNORECASE)
    assert boundary is not None
    assert head.startswith(b"POST /v2beta/stable-image/upscale/creative ")
    assert b'name="image"; filename="image.png"\r\ncontent-type: image/png\r\n\r\n\x89PNG\r\n--' + boundary[1] in body
    assert b'name="prompt"\r\n\r\na cat\r\n--' + boundary[1] + b"--\r\n" in body


async def test_an_input_that_makes_no_form_is_refused_and_nothing_is_sent() -> None:
    async with RawServer(answer({"id": "7"})) as server, adapter_of(path_of("stability"), server) as adapter:
        given = {"image": "data:image/png;base64,%"}
        outcome = await adapter.submit(NewTask(model="stable-image/upscale/creative", task_type="", input=given))
        assert isinstance(outcome, Refused)
        assert outcome.status == 400
    assert server.requests == []


async def test_of_a_file_the_head_alone_is_read_however_long_it_is() -> None:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\nfinish-reason: SUCCESS\r\nseed: " + KEY.encode() + b"\r\n\r\n"
    )
    async with (
        RawServer(head, forever=b"x" * 65536) as server,
        adapter_of(path_of("stability"), server) as adapter,
    ):
        outcome = await adapter.fetch(ProviderTask("7"), attempt=None)
        await server.hung_up.wait()
    assert isinstance(outcome, Found)
    assert (outcome.update.status, outcome.update.provider_task_id) == (TaskStatus.COMPLETED, "7")
    assert outcome.update.output is not None
    assert outcome.update.output["image_url"] == "https://api.stability.ai/v2beta/results/7"
    assert outcome.update.output["seed"] == "***"
    assert server.written < LARGEST_RESPONSE


async def test_an_endless_body_that_is_no_file_is_not_read_to_its_end() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n"
    async with (
        RawServer(head, forever=b"x" * 65536) as server,
        adapter_of(path_of("stability"), server) as adapter,
    ):
        outcome = await adapter.fetch(ProviderTask("7"), attempt=None)
        await server.hung_up.wait()
    assert isinstance(outcome, NoAnswer)


@pytest.mark.parametrize("name", ["..", ".", "", "x" * 1001])
async def test_the_name_of_a_result_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    result = '[result]\npath = "/files/{file}"\nvalues = { file = "file" }\n\n[cancel]'
    path = changed(tmp_path, ("[cancel]", result))
    body = {"job": {"id": "7", "state": "DONE", "file": name}}
    async with RawServer(answer(body)) as server, adapter_of(path, server) as adapter:
        assert isinstance(await adapter.fetch(ProviderTask("7"), attempt=None), NoAnswer)
    assert all(line.startswith(b"GET /jobs/7 ") for line in server.request_lines)


@pytest.mark.parametrize("model", ["a\r\nx-more: 1", "modèle", "a\0b"])
async def test_a_model_that_no_header_may_have_is_refused_before_anything_is_sent(tmp_path: Path, model: str) -> None:
    path = changed(tmp_path, ('task = "job"', 'task = "job"\nheaders = { X-Model = "{model}" }'))
    async with RawServer(answer({"job": {"id": "7"}})) as server, adapter_of(path, server) as adapter:
        outcome = await adapter.submit(NewTask(model=model, task_type="", input={}))
        assert isinstance(outcome, Refused)
        assert (outcome.status, outcome.message) == (400, "model has characters that no header may have")
    assert server.requests == []


async def test_an_id_that_no_header_may_have_is_not_asked_for(tmp_path: Path) -> None:
    look = '[look]\npath = "/jobs/{id}"'
    path = changed(tmp_path, (look, '[look]\npath = "/job"\nheaders = { X-Job = "{id}" }'))
    async with RawServer(answer({})) as server, adapter_of(path, server) as adapter:
        assert isinstance(await adapter.fetch(ProviderTask("7\r\nx: 1"), attempt=None), NoAnswer)
    assert server.requests == []


ELSEWHERE = ("https://evil.example/x", "//evil.example/x", "ftp://e/x", "https://user:pw@e/x", "/a b")
NO_ADDRESS: tuple[object, ...] = (
    *("https://[x", "evil.example/x", "@evil.example/x", "\\\\e\\x", "https://e\uff0fx/", "http:e", "?x", "#", "x y"),
    *("/a/../b", ["/a"], 7, True),
)


@pytest.mark.parametrize("following", [*ELSEWHERE, *NO_ADDRESS])
async def test_the_next_page_of_a_list_is_asked_for_at_the_provider_or_nowhere(
    tmp_path: Path, following: object
) -> None:
    path = changed(tmp_path, ('next_query = "page"', ""))
    asked: list[str] = []

    async def page(request: Request) -> Response:
        asked.append(request.url.path)
        jobs = [{"id": "1", "state": "RUNS", "made": "2026-01-03T00:00:00Z"}]
        return JSONResponse(
            {"jobs": jobs, "more": following} if len(asked) == 1 else {}, 200 if len(asked) == 1 else 404
        )

    async with served(Starlette(routes=[Route("/{rest:path}", page)])) as url:
        account = ProviderAccount(provider="everything", credentials={"api_key": KEY}, base_url=f"{url}/v9")
        adapter = Adapter(DeclaredAPI(read_file(path)), account, timeout=5, rate_limiter=RateLimiter(1000))
        found = await adapter.history(model="m", since=NOW)
        await adapter.aclose()
    assert not found.is_complete
    assert asked[0] == "/v9/jobs"
    assert len(asked) == (2 if following in ELSEWHERE else 1)
    assert all(each.startswith("/v9/") for each in asked)


async def test_a_list_of_a_model_that_makes_no_path_is_incomplete(tmp_path: Path) -> None:
    path = changed(tmp_path, ('path = "/jobs"\n', 'path = "/models/{model:path}/jobs"\n'))
    async with RawServer(answer({})) as server, adapter_of(path, server) as adapter:
        assert not (await adapter.history(model="../x", since=NOW)).is_complete
    assert server.requests == []
