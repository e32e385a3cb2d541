"""The PiAPI adapter against a real server on loopback, which responds, refuses, stalls and disconnects on demand."""

import asyncio
import gzip
import logging
import socket
import tracemalloc
import zlib
from datetime import UTC, datetime
from functools import cache
from threading import current_thread, main_thread
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY

from receiver.domain.updates import Source
from receiver.providers import (
    Accepted,
    Cancelled,
    FetchOutcome,
    Found,
    History,
    Missing,
    NewTask,
    NoAnswer,
    NotMade,
    Provider,
    ProviderTask,
    Refused,
    UnknownOutcome,
)
from receiver.providers.piapi import PiAPI, adapter
from receiver.providers.piapi.calls import CallOutcome
from receiver.providers.piapi.outcomes import fetch_outcome
from receiver.providers.rate_limiter import RateLimiter
from tests.integration.scripted_piapi import (
    CREATED_ID,
    HANG,
    KEY,
    SECRET,
    TASK,
    FakeServer,
    odd_bodies,
    opened,
    payload,
    reply,
)

pytestmark = pytest.mark.no_database("an adapter asks the provider alone")


@pytest.mark.parametrize(("text", "is_apart"), [("short", False), ("x" * 100_000, True)])
async def test_what_a_large_answer_means_is_read_apart_from_the_event_loop(
    server: FakeServer, piapi: PiAPI, monkeypatch: pytest.MonkeyPatch, text: str, is_apart: bool
) -> None:
    threads: list[bool] = []

    def read(outcome: CallOutcome, *given: Any, **more: Any) -> FetchOutcome:
        threads.append(current_thread() is not main_thread())
        return fetch_outcome(outcome, *given, **more)

    monkeypatch.setattr(adapter, "fetch_outcome", read)
    server.responds(
        reply(200, {"code": 200, "data": {"task_id": "p", "status": "completed", "output": {"text": text}}})
    )
    assert isinstance(await piapi.fetch(ProviderTask("p"), attempt=1), Found)
    assert threads == [is_apart]


def test_it_implements_the_protocol() -> None:
    provider: Provider = PiAPI(base_url="http://127.0.0.1:9", api_key=None, timeout=1, rate_limiter=RateLimiter(1))
    assert provider.name == "piapi"


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (429, {"retry_after": "60"}), (503, {"retry_after": "60"})])
async def test_a_429_pauses_all_calls(server: FakeServer, status: int, headers: dict[str, str]) -> None:
    server.responds(reply(status, **headers))
    rate_limiter = RateLimiter(1000)
    async with opened(server.url, rate_limiter=rate_limiter) as piapi:
        await piapi.fetch(ProviderTask("a"), attempt=1)
        assert 0 < rate_limiter.paused_for() <= 60
        if headers:
            outcome = await piapi.submit(TASK)
            assert isinstance(outcome, NotMade)
            assert outcome.retry_after is not None
            assert len(server.requests) == 1


async def test_each_call_takes_a_token(server: FakeServer) -> None:
    server.responds(reply(200, {"code": 200, "data": []}))
    of_provider = ("ringback_provider_turns_total", {"provider": "counted"})
    before = REGISTRY.get_sample_value(*of_provider) or 0
    rate_limiter = RateLimiter(1000, provider="counted")
    async with opened(server.url, rate_limiter=rate_limiter) as piapi:
        await piapi.submit(TASK)
        await piapi.fetch(ProviderTask("a"), attempt=1)
        await piapi.cancel(ProviderTask("a"))
        await piapi.history(model="m", since=datetime.now(UTC))
        await piapi.account_info()
    assert (REGISTRY.get_sample_value(*of_provider) or 0) - before == len(server.requests) == 5


async def test_a_refused_connection_made_nothing() -> None:
    with socket.socket() as held:
        # Bound but not listening: no other process can take the port, and connections are refused.
        held.bind(("127.0.0.1", 0))
        async with opened(f"http://127.0.0.1:{held.getsockname()[1]}") as piapi:
            assert isinstance(await piapi.submit(TASK), NotMade)
            assert isinstance(await piapi.fetch(ProviderTask("a"), attempt=1), NoAnswer)
            assert isinstance(await piapi.cancel(ProviderTask("a")), NoAnswer)
            assert not (await piapi.history(model="m", since=datetime.now(UTC))).is_complete
            status, body = await piapi.account_info()
            assert (status, body["code"]) == (502, 502)


async def test_a_missing_response_is_unknown(server: FakeServer) -> None:
    async with opened(server.url, patience=0.5) as piapi:
        # Connected already, so that only the wait for the response can time out.
        server.responds(reply(404))
        await piapi.fetch(ProviderTask("a"), attempt=1)
        server.responds(HANG)
        assert isinstance(await piapi.submit(TASK), UnknownOutcome)
        outcomes = await asyncio.gather(piapi.fetch(ProviderTask("a"), attempt=1), piapi.cancel(ProviderTask("a")))
    assert all(isinstance(outcome, NoAnswer) for outcome in outcomes)


async def test_a_response_that_is_too_large_is_not_read(
    server: FakeServer, piapi: PiAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.providers.calls.LARGEST_RESPONSE", 1000)
    server.responds(reply(200, b" " * 1001))
    assert isinstance(await piapi.submit(TASK), UnknownOutcome)


@cache
def packed_twice() -> bytes:
    """Return 100 MB, packed twice."""
    return gzip.compress(gzip.compress(bytes(100 << 20)))


def packed(body: bytes, encoding: str) -> bytes:
    """Return a response whose body has that content encoding."""
    return reply(
        200, gzip.compress(body) if "gzip" in encoding.lower() else zlib.compress(body), content_encoding=encoding
    )


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate"])
async def test_a_packed_response_is_unpacked(server: FakeServer, piapi: PiAPI, encoding: str) -> None:
    server.responds(packed(payload("created"), encoding))
    assert isinstance(await piapi.submit(TASK), Accepted)
    assert isinstance(await piapi.fetch(ProviderTask(CREATED_ID), attempt=1), Found)


async def test_a_response_that_only_claims_to_be_packed_by_an_unknown_encoding_is_read(
    server: FakeServer, piapi: PiAPI
) -> None:
    server.responds(reply(200, payload("created"), content_encoding="aws-chunked"))
    assert isinstance(await piapi.submit(TASK), Accepted)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_response_that_unpacks_to_too_much_is_not_unpacked_and_takes_no_memory(
    server: FakeServer, piapi: PiAPI, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("receiver.providers.calls.LARGEST_RESPONSE", 1 << 20)
    answer = packed(bytes(100 << 20), encoding)
    server.responds(answer)
    tracemalloc.start()
    try:
        assert isinstance(await piapi.submit(TASK), UnknownOutcome)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(await piapi.fetch(ProviderTask("a"), attempt=1), NoAnswer)


@pytest.mark.parametrize(
    "encodings", [("gzip, gzip",), ("gzip", "gzip"), ("gzip, deflate, gzip",), ("br",), ("gzip, br",)]
)
async def test_a_response_that_is_packed_more_than_once_is_not_unpacked_and_takes_no_memory(
    server: FakeServer, piapi: PiAPI, encodings: tuple[str, ...]
) -> None:
    body = packed_twice()
    lines = "".join(f"content-encoding: {encoding}\r\n" for encoding in encodings)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{lines}content-length: {len(body)}\r\n\r\n"
    server.responds(head.encode() + body)
    tracemalloc.start()
    try:
        assert isinstance(await piapi.submit(TASK), UnknownOutcome)
        assert isinstance(await piapi.fetch(ProviderTask("a"), attempt=1), NoAnswer)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


async def test_a_refusal_that_is_packed_more_than_once_is_a_refusal(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(400, gzip.compress(gzip.compress(b"{}")), content_encoding="gzip, gzip"))
    assert isinstance(await piapi.submit(TASK), Refused)


async def test_a_long_response_is_read_whole_packed_or_not(server: FakeServer, piapi: PiAPI) -> None:
    task = {
        "task_id": "t",
        "status": "completed",
        "output": {"image_url": "https://x.example/a.png", "note": "x" * 10**6},
    }
    body = orjson.dumps({"code": 200, "data": task, "message": "success"})
    for answer in (reply(200, body), packed(body, "gzip")):
        server.responds(answer)
        found = await piapi.fetch(ProviderTask("t"), attempt=1)
        assert isinstance(found, Found)
        assert (found.update.output or {})["note"] == "x" * 10**6


async def test_a_response_with_too_many_values_is_not_read(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, b'{"code":200,"data":{"task_id":"t","output":[' + b"0," * 1_000_000 + b"0]}}"))
    assert isinstance(await piapi.submit(TASK), UnknownOutcome)


@pytest.mark.parametrize("number", range(11))
async def test_responses_with_odd_bytes_are_read(server: FakeServer, piapi: PiAPI, number: int) -> None:
    task = {"task_id": "t", "status": "completed", "output": {"image_url": "https://x.example/a.png", "note": "@"}}
    body = odd_bodies(orjson.dumps({"code": 200, "data": task, "message": "success"}))[number]
    server.responds(reply(200, body))
    accepted, found = await piapi.submit(TASK), await piapi.fetch(ProviderTask("t"), attempt=1)
    assert isinstance(accepted, Accepted)
    assert isinstance(found, Found)
    for update in (accepted.update, found.update):
        assert (update.status, (update.output or {})["image_url"]) == ("completed", "https://x.example/a.png")
        assert orjson.loads(orjson.dumps(update.output)) == update.output


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_without_a_key_nothing_is_sent_and_the_setting_is_named(server: FakeServer, key: str | None) -> None:
    async with opened(server.url, api_key=key) as piapi:
        outcome = await piapi.submit(TASK)
        assert isinstance(outcome, Refused)
        assert outcome.status == outcome.body["code"] == 502
        assert outcome.code == "provider_unauthorized"
        assert "RINGBACK_PIAPI_API_KEY" in outcome.message
        assert isinstance(await piapi.fetch(ProviderTask("a"), attempt=1), NoAnswer)
        assert isinstance(await piapi.cancel(ProviderTask("a")), Refused)
        assert await piapi.history(model="m", since=datetime.now(UTC)) == History([], is_complete=False)
        status, body = await piapi.account_info()
        assert (status, body["code"]) == (502, 502)
        assert "RINGBACK_PIAPI_API_KEY" in body["message"]
    assert server.requests == []


async def test_a_short_key_garbles_no_id_and_no_url(server: FakeServer) -> None:
    output = {"video_url": "https://x.example/123456/v.mp4", "seed": 1234567}
    task = {"task_id": "ab-123456-cd", "status": "completed", "output": output, "detail": "123456"}
    server.responds(reply(200, {"code": 200, "data": task}))
    async with opened(server.url, api_key="123456") as piapi:
        found = await piapi.fetch(ProviderTask("ab-123456-cd"), attempt=1, hidden="x" * 43)
    assert isinstance(found, Found)
    files = [{"url": "https://x.example/123456/v.mp4", "kind": "video", "name": "video_url"}]
    assert found.update.output == {**output, "output_files": files}
    assert found.update.detail == "***"


@pytest.mark.parametrize("key", ["planted\r\nkey-0123456789", "planted-klíč-0123456789"])
async def test_a_key_that_is_invalid_in_a_header_is_not_repeated_in_the_message(server: FakeServer, key: str) -> None:
    async with opened(server.url, api_key=key) as piapi:
        assert "planted" not in repr(await piapi.submit(TASK))
        assert "planted" not in repr(await piapi.account_info())


async def test_the_key_and_the_secret_are_redacted_everywhere(
    server: FakeServer, piapi: PiAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    words = f"no such key: {KEY}, webhook secret {SECRET}"
    for status in (200, 400, 401, 429, 500, 502, 503):
        for body in ({"code": status, "message": words, "data": {"key": KEY}}, words.encode()):
            server.responds(reply(status, body, retry_after="0"))
            assert "planted" not in repr(await piapi.submit(TASK))
            assert KEY not in repr(await piapi.fetch(ProviderTask("a"), attempt=1))
            assert KEY not in repr(await piapi.cancel(ProviderTask("a")))
            assert KEY not in repr(await piapi.account_info())
    assert len(server.requests) > 4
    assert "planted" not in caplog.text


async def test_an_input_that_cannot_be_written_as_json_is_refused(server: FakeServer, piapi: PiAPI) -> None:
    outcome = await piapi.submit(NewTask(model="m", task_type="t", input={"n": 2**80}))
    assert isinstance(outcome, Refused)
    assert outcome.status == 400
    assert server.requests == []


async def test_a_task_is_found(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, payload("created")))
    outcome = await piapi.fetch(ProviderTask(CREATED_ID), attempt=4)
    assert isinstance(outcome, Found)
    assert (outcome.update.source, outcome.update.attempt) == (Source.POLL, 4)
    assert SECRET not in repr(outcome)
    assert (server.requests[0].method, server.requests[0].target) == ("GET", f"/api/v1/task/{CREATED_ID}")


@pytest.mark.parametrize(
    "answer",
    [
        reply(404, {"code": 404, "data": None, "message": "record not found"}),
        reply(200, payload("error_code_data_message")),
        reply(500, {"code": 500, "data": None, "message": "failed to find task: Record not found"}),
        reply(400, {"error": "task not found"}),
    ],
)
async def test_a_task_that_the_provider_does_not_know_is_missing(
    server: FakeServer, piapi: PiAPI, answer: bytes
) -> None:
    server.responds(answer)
    assert isinstance(await piapi.fetch(ProviderTask("a"), attempt=1), Missing)
    assert isinstance(await piapi.cancel(ProviderTask("a")), Missing)


@pytest.mark.parametrize(
    "answer",
    [
        reply(401, payload("error_error")),
        reply(500, {"message": "x"}),
        reply(502),
        reply(302, location="/"),
        reply(200),
        reply(200, b"<html>"),
        reply(200, {"code": 200, "data": None}),
        reply(200, {"code": 200, "data": {"task_id": ["a"], "status": "completed"}}),
        reply(200, {"code": 200, "data": {"task_id": "another", "status": "completed"}}),
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{",
    ],
)
async def test_anything_else_is_no_answer(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    assert isinstance(await piapi.fetch(ProviderTask("a"), attempt=1), NoAnswer)


@pytest.mark.parametrize("answer", [reply(404), reply(404, b"<html>")])
async def test_a_404_without_the_providers_words_is_no_answer_to_a_poll_and_the_end_of_a_cancel(
    server: FakeServer, piapi: PiAPI, answer: bytes
) -> None:
    server.responds(answer)
    assert isinstance(await piapi.fetch(ProviderTask("a"), attempt=1), NoAnswer)
    assert isinstance(await piapi.cancel(ProviderTask("a")), Missing)


async def test_no_answer_has_the_retry_after(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(503, {"message": "later"}, retry_after="9"))
    assert await piapi.fetch(ProviderTask("a"), attempt=1) == NoAnswer("later", 9)


@pytest.mark.parametrize("task_id", ["../tasks", "a/b?c=d#e", "ü \n"])
async def test_an_id_stays_one_segment_of_the_path(server: FakeServer, piapi: PiAPI, task_id: str) -> None:
    server.responds(reply(200, {"code": 200, "data": {"task_id": task_id}}))
    assert isinstance(await piapi.fetch(ProviderTask(task_id), attempt=1), Found)
    assert server.requests[0].path.count("/") == 4
    assert server.requests[0].query == {}


@pytest.mark.parametrize("task_id", ["", ".", ".."])
async def test_no_call_is_made_for_an_id_of_dots(server: FakeServer, piapi: PiAPI, task_id: str) -> None:
    assert isinstance(await piapi.fetch(ProviderTask(task_id), attempt=1), Missing)
    assert isinstance(await piapi.cancel(ProviderTask(task_id)), Missing)
    assert server.requests == []


@pytest.mark.parametrize(
    "answer", [reply(200, {"code": 200, "message": "success"}), reply(200, {"code": 0}), reply(204)]
)
async def test_a_task_is_cancelled(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    assert isinstance(await piapi.cancel(ProviderTask("a")), Cancelled)
    assert (server.requests[0].method, server.requests[0].target) == ("DELETE", "/api/v1/task/a")


@pytest.mark.parametrize("status", [200, 400])
async def test_a_cancellation_is_refused(server: FakeServer, piapi: PiAPI, status: int) -> None:
    body = {"code": 400, "message": "only a pending task can be cancelled"}
    server.responds(reply(status, body))
    assert await piapi.cancel(ProviderTask("a")) == Refused(400, body["message"], body)  # type: ignore[arg-type]


async def test_a_cancellation_is_refused_by_an_error_inside_a_success(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, {"code": 10, "message": "the task cannot be cancelled"}))
    outcome = await piapi.cancel(ProviderTask("a"))
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.message) == (400, "the task cannot be cancelled")


@pytest.mark.parametrize("answer", [reply(429, retry_after="0"), reply(500), reply(200, b"<html>"), b""])
async def test_a_cancellation_without_an_answer(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    assert isinstance(await piapi.cancel(ProviderTask("a")), NoAnswer)


async def test_the_account_is_passed_on(server: FakeServer, piapi: PiAPI) -> None:
    body = {"code": 200, "data": {"account_name": "me", "webhook_config": {"secret": SECRET}}, "message": "success"}
    server.responds(reply(200, body))
    assert await piapi.account_info() == (
        200,
        {"code": 200, "data": {"account_name": "me", "webhook_config": {}}, "message": "success"},
    )
    assert server.requests[0].target == "/account/info"
    for unauthorized in (reply(401, payload("error_error")), reply(200, {"code": 401, "message": "unauthorized"})):
        server.responds(unauthorized)
        status, answer = await piapi.account_info()
        assert (status, answer["code"]) == (502, 502)
        assert "RINGBACK_PIAPI_API_KEY" in answer["message"]
    server.responds(reply(402, payload("error_error")))
    assert await piapi.account_info() == (402, {"error": "unauthorized"})
    server.responds(reply(200, {"code": 402, "message": "unpaid"}))
    assert await piapi.account_info() == (200, {"code": 402, "message": "unpaid"})
    for unusable in (reply(200, b"<html>"), reply(200, [1]), reply(200, b"null")):
        server.responds(unusable)
        status, answer = await piapi.account_info()
        assert (status, answer["code"]) == (502, 502)
        assert "cannot be used" in answer["message"]
    server.responds(reply(500, b"<html>"))
    assert await piapi.account_info() == (
        500,
        {"code": 500, "data": None, "message": "HTTP 500 from the provider"},
    )


async def test_one_connection_serves_many_calls(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, payload("created")))
    for _ in range(3):
        await piapi.fetch(ProviderTask(CREATED_ID), attempt=1)
    assert len(server._connections) == 1


async def test_an_adapter_that_never_called_can_be_closed() -> None:
    async with opened("http://127.0.0.1:9"):
        pass
