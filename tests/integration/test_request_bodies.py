"""The bodies of API requests: byte order marks, packed ones, and how large they may be."""

import base64
import gzip
import random
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from tests.fakes.command import Ringback
from tests.fakes.inbound import hook_secret
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = '{"model": "kling", "task_type": "video_generation", "input": {"prompt": "a cät"}}'
RUN = '{"steps": [{"id": "a", "action": "kling:video_generation", "input": {"prompt": "a cät"}}]}'
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-be"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


def encoded(text: str, encoding: str) -> bytes:
    """Return a text with a byte order mark."""
    return f"\ufeff{text}".encode(encoding) if encoding == "utf-16-be" else text.encode(encoding)


async def post(world: World, path: str, content: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.api.post(path, content=content, headers={"content-type": "application/json", **named})


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_body_may_begin_with_a_byte_order_mark(world: World, encoding: str) -> None:
    created = await post(world, "/api/v1/task", encoded(TASK, encoding))
    assert created.status_code == 200, created.text
    assert (await world.task(created.json()["data"]["task_id"]))["input"] == {"prompt": "a cät"}
    for path, text, status in (
        ("/api/v1/runs", RUN, 202),
        ("/api/v1/tasks", f'{{"tasks": [{TASK}]}}', 202),
        ("/api/v1/webhooks", f'{{"endpoint_url": "{world.subscriber.url}"}}', 200),
    ):
        answer = await post(world, path, encoded(text, encoding))
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}", b"\xff\xfe{", b'{"a": "\xe9"}', b"NaN"]
)
async def test_a_mark_makes_nothing_else_json(world: World, body: bytes) -> None:
    answer = await post(world, "/api/v1/runs", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json_body")


async def test_the_same_request_with_and_without_a_mark_is_the_same_request(world: World) -> None:
    key = {"idempotency-key": new_id()}
    first = await post(world, "/api/v1/task", TASK.encode(), **key)
    for encoding in ENCODINGS:
        again = await post(world, "/api/v1/task", encoded(TASK, encoding), **key)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["x-idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_packed_body_is_unpacked(world: World, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    key = new_id()
    created = await post(world, "/api/v1/task", pack(TASK.encode()), content_encoding=encoding, idempotency_key=key)
    assert created.status_code == 200, created.text
    assert (await world.task(created.json()["data"]["task_id"]))["input"] == {"prompt": "a cät"}
    again = await post(world, "/api/v1/task", TASK.encode(), idempotency_key=key)
    assert again.headers["x-idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [("br", b"x", 415), ("gzip", b"{}", 400), ("gzip", gzip.compress(b" " * 20_000_000), 413)],
    ids=["unknown", "broken", "large"],
)
async def test_a_body_that_cannot_be_unpacked_is_refused_as_such(
    world: World, encoding: str, body: bytes, status: int
) -> None:
    answer = await post(world, "/api/v1/runs", body, content_encoding=encoding)
    assert answer.status_code == status
    assert "not JSON" not in answer.json()["error"]["message"]


async def test_a_picture_in_base64_goes_to_the_provider_and_back_whole(world: World) -> None:
    picture = base64.b64encode(random.Random(1).randbytes(8_000_000)).decode()
    body = {"model": "kling", "task_type": "video_generation", "input": {"image": picture}}
    answer = await world.api.post("/api/v1/task", json=body)
    assert answer.status_code == 200, answer.text[:300]
    task = await world.ended(answer.json()["data"]["task_id"])
    assert (task["status"], task["input"]["image"] == picture) == ("completed", True)


async def test_each_limit_is_its_own_and_named_in_its_413(tmp_path: Path) -> None:
    async with in_process(tmp_path, max_body_bytes="2048", max_request_bytes="4096") as world:
        task_id = await world.created(input={"prompt": "x" * 3000})
        for path in ("/api/v1/task", "/api/v1/runs", "/api/v1/tasks", "/api/v1/webhooks"):
            for content in (b" " * 4097, chunks(4097)):
                refused = await world.api.post(path, content=content)
                assert refused.status_code == 413
                assert "RINGBACK_MAX_REQUEST_BYTES" in refused.text
        secret = {"x-webhook-secret": hook_secret(world, task_id)}
        hooked = await world.provider.post(f"{world.base}/hooks/piapi/{task_id}", content=b" " * 2049, headers=secret)
        assert hooked.status_code == 413
        assert "RINGBACK_MAX_BODY_BYTES" in hooked.text


async def chunks(size: int) -> AsyncIterator[bytes]:
    """Yield a body without a `Content-Length`."""
    for _ in range(size):
        yield b" "


@pytest.mark.sqlite_only("the commands use HTTP alone; other tests cover the database")
class TestFilesOfTheCommandLine:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    async def test_every_file_may_have_a_byte_order_mark(self, world: World, encoding: str) -> None:
        ringback, folder = Ringback(world), world.folder
        folder.joinpath("input.json").write_bytes(encoded('{"prompt": "a cät"}', encoding))
        folder.joinpath("run.json").write_bytes(encoded(RUN, encoding))
        folder.joinpath("tasks.jsonl").write_bytes(encoded(f"{TASK}\r\n\r\n{TASK}", encoding))
        model = ("--model", "kling", "--task-type", "video_generation")
        task = await ringback.data("task", "create", *model, "--input", "@input.json", "--metadata", "@input.json")
        stored = await world.task(task["task_id"])
        assert (stored["input"], stored["metadata"]) == ({"prompt": "a cät"},) * 2
        assert (await ringback.data("run", "create", "-f", "run.json"))["steps"]
        bulk = await ringback.data("task", "create", "--bulk", "tasks.jsonl")
        assert [line["line"] for line in bulk["data"]] == [1, 3]
        for line in bulk["data"]:
            assert (await world.task(line["task_id"]))["input"] == {"prompt": "a cät"}

    async def test_standard_input_may_have_a_byte_order_mark(self, world: World) -> None:
        ringback = Ringback(world)
        bulk = await ringback.data("task", "create", "--bulk", "-", stdin=f"\ufeff{TASK}\n{TASK}\n")
        assert [line["line"] for line in bulk["data"]] == [1, 2]
        assert (await ringback.data("run", "create", "-f", "-", stdin=f"\ufeff{RUN}"))["steps"]

    async def test_the_error_names_the_file_and_what_is_wrong_with_it(self, world: World) -> None:
        ringback = Ringback(world)
        world.folder.joinpath("latin.json").write_bytes('{"prompt": "a cät"}'.encode("latin-1"))
        world.folder.joinpath("cut.json").write_bytes(b"\xef\xbb\xbf{")
        for name, words in (("latin.json", "not a text in UTF-8"), ("cut.json", "is not JSON")):
            for arguments in (
                ("task", "create", "--model", "m", "--task-type", "t", "--input", f"@{name}"),
                ("run", "create", "-f", name),
            ):
                status, _, err = await ringback.run(*arguments)
                assert (status, name in err, words in err, err.count("\n")) == (2, True, True, 1), err
