"""A long poll is answered when the application has returned: as any other request is, or not at all."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from receiver.api.long_poll import LongPoll
from receiver.api.quotas import Quotas
from receiver.domain.ids import new_id
from receiver.errors import NotFound, OrganizationRateLimited, RingbackError, StorageUnavailable
from receiver.events import after_commit
from receiver.serving.afterwards import WithAfterwards
from receiver.serving.connection import ServerConnection
from receiver.tracking.tracker import Tracker
from tests.fakes.pipeline import HELD, begin, step, world_with_actions
from tests.fakes.raw_client import raw_connection
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = "https://app.example.com"
WAIT = "wait_for_completion=true&timeout_seconds"
SECONDS = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module."""
    async with world_with_actions(tmp_path_factory.mktemp("world"), cors_origins=PAGE) as world:
        yield world


@pytest.fixture
def gone_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the path of each request is added that is answered when the application has returned."""
    paths: list[str] = []
    call = LongPoll.__call__

    async def note(self: LongPoll, scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await call(self, scope, receive, send)

    monkeypatch.setattr(LongPoll, "__call__", note)
    return paths


def request(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {API_KEY}\r\n\r\n".encode()


async def sample(world: World, name: str, labels: Mapping[str, str] | None = None) -> float:
    families = text_string_to_metric_families((await world.api.get("/metrics")).text)
    found = [each for family in families for each in family.samples if each.name == name]
    return sum(each.value for each in found if (labels or {}).items() <= each.labels.items())


async def waiting(world: World, polls: int) -> None:
    """Wait until this number of long polls wait. Raises TimeoutError."""
    async with asyncio.timeout(SECONDS):
        while await sample(world, "ringback_long_polls_waiting") != polls:
            pass


@pytest.mark.parametrize("path", ["/api/v1/task/{}", "/api/v1/tasks/{}", "/api/v1/jobs/{}"])
async def test_a_task_is_waited_for_when_the_application_has_returned(
    world: World, gone_on: list[str], path: str
) -> None:
    task_id = await world.created(HELD)
    answer = await world.api.get(f"{path.format(task_id)}?{WAIT}=1")
    assert answer.status_code == 200
    assert task_id in answer.text
    assert gone_on == [path.format(task_id)]


async def test_a_run_is_waited_for_so_too(world: World, gone_on: list[str]) -> None:
    path = f"/api/v1/runs/{await begin(world, step('a', sandbox=HELD))}"
    answer = await world.api.get(f"{path}?{WAIT}=1&include=details")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "in_progress")
    assert gone_on == [path]


async def test_several_tasks_are_waited_for_so_too(world: World, gone_on: list[str]) -> None:
    wanted = {"task_ids": [await world.created(HELD)], "timeout_seconds": 1}
    answer = await world.api.post("/api/v1/tasks/wait", json=wanted)
    assert (answer.status_code, answer.json()["data"]["timed_out"]) == (200, True)
    assert gone_on == ["/api/v1/tasks/wait"]


async def test_a_prediction_is_waited_for_so_too_unless_its_answer_is_to_be_stored(
    world: World, gone_on: list[str]
) -> None:
    wanted = {"version": "piapi:Qubico/flux1-schnell@txt2img", "input": {"prompt": "a cat", "sandbox": HELD}}
    headers = {"prefer": "wait=1"}
    first = await world.api.post("/v1/predictions", json=wanted, headers=headers)
    assert (first.status_code, first.json()["status"]) == (202, "starting")
    assert gone_on == ["/v1/predictions"]
    headers["idempotency-key"] = new_id()
    kept = await world.api.post("/v1/predictions", json=wanted, headers=headers)
    assert kept.status_code == 202
    again = await world.api.post("/v1/predictions", json=wanted, headers=headers)
    assert again.json()["id"] == kept.json()["id"]
    assert gone_on == ["/v1/predictions"]


async def test_the_answer_has_every_header_and_its_whole_time_is_measured(world: World) -> None:
    task_id = await world.created(HELD)
    labels = {"route": "/api/v1/tasks/{task_id}", "method": "GET"}
    before = await sample(world, "ringback_http_request_duration_seconds_sum", labels)
    answer = await world.api.get(f"/api/v1/tasks/{task_id}?{WAIT}=1", headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["x-request-id"] == answer.json()["id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= answer.headers.keys()
    assert await sample(world, "ringback_http_request_duration_seconds_sum", labels) - before >= 0.95


async def test_the_answer_has_them_too_where_no_page_may_call_the_api(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        task_id = await world.created(HELD)
        labels = {"route": "/api/v1/tasks/{task_id}", "method": "GET"}
        at_once = await world.api.get(f"/api/v1/tasks/{task_id}")
        before = await sample(world, "ringback_http_request_duration_seconds_sum", labels)
        answer = await world.api.get(f"/api/v1/tasks/{task_id}?{WAIT}=1")
        assert answer.headers["x-request-id"] == answer.json()["id"]
        assert answer.headers.keys() == at_once.headers.keys()
        assert await sample(world, "ringback_http_request_duration_seconds_sum", labels) - before >= 0.95


async def test_a_head_is_answered_after_the_wait_without_a_body(world: World) -> None:
    task_id = await world.created(HELD)
    async with raw_connection(world.base) as client:
        began = asyncio.get_running_loop().time()
        await client.send(request(f"/api/v1/tasks/{task_id}?{WAIT}=1", "HEAD"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert asyncio.get_running_loop().time() - began >= 0.95
        await client.send(request("/livez"))
        assert (await client.answer())[0] == 200  # and no byte before it


async def test_a_wait_ends_with_its_client_and_is_free_for_another(world: World) -> None:
    path = f"/api/v1/tasks/{await world.created(HELD)}?{WAIT}=30"
    await waiting(world, 0)
    async with raw_connection(world.base) as client:
        await client.send(request(path))
        await waiting(world, 1)
        client.writer.close()
        await waiting(world, 0)
    used = (await world.api.get("/api/v1/organization")).json()["data"]["used"]["streams"]
    assert used == 0


async def test_a_client_that_creates_and_is_gone_ends_the_wait_and_not_the_task(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = {"version": "piapi:Qubico/flux1-schnell@txt2img", "input": {"prompt": "gone", "sandbox": HELD}}
    body = orjson.dumps(wanted)
    headers = f"host: a\r\nx-api-key: {API_KEY}\r\nprefer: wait=30\r\ncontent-length: {len(body)}\r\n\r\n"
    await waiting(world, 0)
    with caplog.at_level(logging.WARNING):
        async with raw_connection(world.base) as client:
            await client.send(f"POST /v1/predictions HTTP/1.1\r\n{headers}".encode() + body)
            await waiting(world, 1)
            client.writer.close()
            await waiting(world, 0)
        assert (await world.api.get("/livez")).status_code == 200
    assert [record for record in caplog.records if record.name.startswith(("uvicorn", "asyncio"))] == []
    assert (await world.api.get("/api/v1/organization")).json()["data"]["used"]["streams"] == 0
    found = (await world.api.get("/api/v1/tasks", params={"limit": 1})).json()["data"]["data"]
    assert found[0]["status"] in {"pending", "processing"}


async def test_a_connection_goes_on_after_the_answers_of_long_polls(world: World, gone_on: list[str]) -> None:
    task_id = await world.created(HELD)
    body = orjson.dumps({"task_ids": [task_id], "timeout_seconds": 1})
    posted = (
        f"POST /api/v1/tasks/wait HTTP/1.1\r\nhost: a\r\nx-api-key: {API_KEY}\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
    )
    get = request(f"/api/v1/tasks/{task_id}?{WAIT}=1")
    async with raw_connection(world.base) as client:
        for sent in (get, request("/livez"), posted + body, get, request("/livez")):
            await client.send(sent)
            status, headers, _ = await client.answer()
            assert (status, headers.get("connection")) == (200, None)
    assert len(gone_on) == 3


def without_parser() -> int:
    """Return how many connections that are open hold no parser."""
    every = [each for each in gc.get_objects() if isinstance(each, ServerConnection)]
    return sum(each.parser is None and not each.transport.is_closing() for each in every)


async def test_a_connection_whose_request_waits_holds_no_parser_and_gets_one_for_the_next_request(world: World) -> None:
    task_id = await world.created(HELD)
    async with raw_connection(world.base) as client:
        for _ in range(2):
            await client.send(request(f"/api/v1/tasks/{task_id}?{WAIT}=1"))
            await waiting(world, 1)
            assert without_parser() == 1
            assert (await client.answer())[0] == 200
            await client.send(request("/livez"))
            assert (await client.answer())[0] == 200
            assert without_parser() == 0


async def test_a_body_may_end_while_its_request_waits_already(world: World) -> None:
    task_id = await world.created(HELD)
    head = f"GET /api/v1/tasks/{task_id}?{WAIT}=1 HTTP/1.1\r\nhost: a\r\nx-api-key: {API_KEY}\r\ncontent-length: 9\r\n"
    async with raw_connection(world.base) as client:
        await client.send(f"{head}\r\n{{".encode())
        await waiting(world, 1)
        await client.send(b'"a": 1}')
        await client.send(b" ")
        status, headers, body = await client.answer()
        assert (status, headers.get("connection")) == (200, None)
        assert task_id.encode() in body
        await client.send(request("/livez"))
        assert (await client.answer())[0] == 200


async def test_a_key_that_is_revoked_ends_a_wait_for_several_tasks(world: World) -> None:
    key = (await world.api.post("/api/v1/keys", json={"name": "reader", "scope": "read"})).json()["data"]
    wanted = {"task_ids": [await world.created(HELD)], "timeout_seconds": 30}
    await waiting(world, 0)
    asked = world.api.post("/api/v1/tasks/wait", json=wanted, headers={"x-api-key": key["key"]})
    polling = asyncio.create_task(asked)
    await waiting(world, 1)
    assert (await world.api.delete(f"/api/v1/keys/{key['id']}")).status_code == 200
    async with asyncio.timeout(SECONDS):
        answer = await polling
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    await waiting(world, 0)
    assert (await world.api.get("/api/v1/organization")).json()["data"]["used"]["streams"] == 0


async def test_a_wait_beyond_the_organization_s_limit_is_refused_as_before(
    world: World, monkeypatch: pytest.MonkeyPatch, gone_on: list[str]
) -> None:
    task_id = await world.created(HELD)
    refusal = OrganizationRateLimited("too many", param="streams", retry_after=7)
    monkeypatch.setattr(Quotas, "take_stream", Mock(side_effect=refusal))
    before = await sample(world, "ringback_organization_refusals_total", {"limit": "streams"})
    answer = await world.api.get(f"/api/v1/tasks/{task_id}?{WAIT}=20")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["error"]["param"] == "streams"
    assert len(gone_on) == 1
    assert await sample(world, "ringback_organization_refusals_total", {"limit": "streams"}) == before + 1


async def test_an_inbound_webhook_is_not_offered_to_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = Mock(side_effect=WithAfterwards)
    monkeypatch.setattr("receiver.serving.connection.WithAfterwards", offered)
    assert (await world.api.post("/hooks/piapi/x", json={})).status_code == 401
    assert (await world.api.post("/api/v1/tasks/wait", json={})).status_code == 400
    # The provider's twin is served by this process too, and may be asked meanwhile.
    paths = {call.args[1].scope["path"] for call in offered.call_args_list}
    assert "/api/v1/tasks/wait" in paths
    assert "/hooks/piapi/x" not in paths


async def test_requests_behind_a_long_poll_are_answered_after_it(world: World) -> None:
    task_id = await world.created(HELD)
    async with raw_connection(world.base) as client:
        await client.send(request(f"/api/v1/tasks/{task_id}?{WAIT}=1") + request("/livez") + request("/nothing"))
        first, second, third = [await client.answer() for _ in range(3)]
    assert task_id.encode() in first[2]
    assert (second[0], third[0]) == (200, 404)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("task 'x' does not exist", code="task_not_found", param="task_id"), 404, "task_not_found"),
        (StorageUnavailable("the database is not available"), 503, "storage_unavailable"),
        (ValueError("a bug"), 500, RingbackError.code),
    ],
    ids=["purged", "database away", "a bug"],
)
async def test_what_goes_wrong_while_a_task_is_waited_for_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch, gone_on: list[str], error: Exception, status: int, code: str
) -> None:
    task_id = await world.created(HELD)
    read, reads = Tracker._if_small, 0

    async def read_once(self: Tracker, organization_id: int, wanted: str) -> Any:
        nonlocal reads
        reads += 1
        if reads > 2:  # the look for its id, and the first one
            raise error
        return await read(self, organization_id, wanted)

    monkeypatch.setattr(Tracker, "_if_small", read_once)
    monkeypatch.setattr(after_commit, "_REREAD_SECONDS", 0.1)
    answer = await world.api.get(f"/api/v1/tasks/{task_id}?{WAIT}=20")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"]
    assert "x-ratelimit-limit" in answer.headers
    assert len(gone_on) == 1
    assert (await world.api.get("/api/v1/organization")).json()["data"]["used"]["streams"] == 0
