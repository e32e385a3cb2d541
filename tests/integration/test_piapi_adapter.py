"""The PiAPI adapter against a real server on loopback, which responds, refuses, stalls and disconnects on demand."""

import asyncio
import gzip
import logging
import socket
import tracemalloc
import zlib
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest

from models import TaskStatus
from receiver.domain.updates import Source
from receiver.providers import (
    Accepted,
    Cancelled,
    FailedAttempt,
    Found,
    History,
    Missing,
    NewTask,
    NoAnswer,
    NotMade,
    Provider,
    Refused,
    UnknownOutcome,
)
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter
from receiver.telemetry import provider_calls
from tests.integration.scripted_piapi import (
    CREATED_ID,
    HANG,
    KEY,
    SECRET,
    FakeServer,
    odd_bodies,
    opened,
    payload,
    reply,
)

pytestmark = pytest.mark.no_database("an adapter asks the provider alone")

TASK = NewTask(
    model="Qubico/flux1-schnell",
    task_type="txt2img",
    input={"prompt": "a cup"},
    config={"service_mode": "private", "webhook_config": {"endpoint": "https://client.example.com", "secret": "own"}},
    webhook_url="https://ringback.example.com/hooks/piapi/0197",
    webhook_secret=SECRET,
)


def counted(call: str, outcome: str) -> float:
    value: float = provider_calls.labels("piapi", call, outcome)._value.get()
    return value


def test_it_implements_the_protocol() -> None:
    provider: Provider = PiAPI(base_url="http://127.0.0.1:9", api_key=None, timeout=1, rate_limiter=RateLimiter(1))
    assert provider.name == "piapi"


async def test_a_task_is_created_with_our_webhook_in_place_of_the_clients(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, payload("created")))
    before = counted("submit", "accepted")
    outcome = await piapi.submit(TASK)
    assert isinstance(outcome, Accepted)
    assert (outcome.update.source, outcome.update.status) == (Source.SUBMIT, TaskStatus.PENDING)
    assert outcome.update.provider_task_id == CREATED_ID
    assert SECRET not in repr(outcome)
    assert counted("submit", "accepted") == before + 1
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/api/v1/task")
    assert request.headers["x-api-key"] == KEY
    assert orjson.loads(request.body) == {
        "model": "Qubico/flux1-schnell",
        "task_type": "txt2img",
        "input": {"prompt": "a cup"},
        "config": {
            "service_mode": "private",
            "webhook_config": {"endpoint": "https://ringback.example.com/hooks/piapi/0197", "secret": SECRET},
        },
    }


async def test_without_a_public_url_no_webhook_is_sent(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, payload("created")))
    config = {"webhook_config": {"endpoint": "https://client.example.com"}}
    await piapi.submit(NewTask(model="m", task_type="t", input={}, config=config))
    assert orjson.loads(server.requests[0].body) == {"model": "m", "task_type": "t", "input": {}}


ACCEPTED = [
    reply(200, payload("created")),
    reply(201, {"code": 0, "data": {"task_id": "a", "status": "Pending"}}),
    reply(200, {"code": 200, "data": {"task_id": "a"}}),
    reply(200, {"task_id": "a", "status": ""}),
    reply(200, {"code": 200, "data": {"task_id": 123456, "status": "pending"}}),
    reply(200, payload("created"), content_encoding="gzip"),  # and yet it is not packed
]
UNKNOWN = [
    reply(200, b"<html>welcome</html>", content_type="text/html"),
    reply(200),
    reply(204),
    reply(200, {"code": 200, "data": None, "message": "success"}),
    reply(200, {"code": 0, "data": {"task_id": ""}}),
    reply(200, {"code": 200, "data": {"task_id": True}}),
    reply(200, {"code": 502, "message": "bad gateway"}),
    reply(200, {"code": 10001, "message": "?"}),
    reply(408),
    reply(502, b"<html>bad gateway</html>"),
    reply(504),
    reply(524),
    reply(302, location="https://elsewhere.example.com/"),
    b"",
    b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{",
    b"SSH-2.0-OpenSSH_9.6\r\n",
]


@pytest.mark.parametrize("answer", ACCEPTED)
async def test_a_task_in_a_success_is_accepted(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    assert isinstance(await piapi.submit(TASK), Accepted)


@pytest.mark.parametrize("answer", UNKNOWN)
async def test_an_unusable_or_truncated_response_is_unknown(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    before = counted("submit", "unknown")
    assert isinstance(await piapi.submit(TASK), UnknownOutcome)
    assert counted("submit", "unknown") == before + 1
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 501, 505])
async def test_after_the_providers_own_failure_the_task_may_exist(
    server: FakeServer, piapi: PiAPI, status: int
) -> None:
    server.responds(reply(status, {"code": status, "message": "broken"}))
    assert await piapi.submit(TASK) == UnknownOutcome("broken", status)


async def test_a_failure_in_the_envelope_counts_as_a_failure(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, {"code": 500, "message": "broken"}))
    assert await piapi.submit(TASK) == UnknownOutcome("broken", 500)


async def test_a_503_means_that_nothing_was_made_unless_a_setting_says_otherwise(server: FakeServer) -> None:
    server.responds(reply(503, {"message": "no capacity"}))
    async with opened(server.url) as piapi:
        assert await piapi.submit(TASK) == NotMade("no capacity")
    async with opened(server.url, trusts_503=False) as piapi:
        assert await piapi.submit(TASK) == UnknownOutcome("no capacity", 503)


@pytest.mark.parametrize(
    "words",
    [
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        "upstream request timeout",
        "Backend fetch failed",
        "first byte timeout",
    ],
)
async def test_a_503_of_a_gateway_that_lost_the_connection_is_unknown(
    server: FakeServer, piapi: PiAPI, words: str
) -> None:
    for body in (words.encode(), {"message": words}):
        server.responds(reply(503, body))
        assert await piapi.submit(TASK) == UnknownOutcome(words, 503)


async def test_a_redirect_is_not_followed(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(308, location=server.url + "/elsewhere"))
    outcome = await piapi.submit(TASK)
    assert isinstance(outcome, FailedAttempt)
    assert "RINGBACK_PIAPI_BASE_URL" in outcome.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (reply(400, payload("error_code_message")), {"code": 400, "message": "invalid task type"}),
        (
            reply(404, payload("error_code_data_message")),
            {"code": 404, "data": None, "message": "record not found"},
        ),
        (reply(402, payload("error_error")), {"code": 402, "data": None, "message": "unauthorized"}),
        (
            reply(422, payload("error_description")),
            {"code": 422, "data": None, "message": "the model is not known"},
        ),
        (reply(405, payload("error_detail")), {"code": 405, "data": None, "message": "method not allowed"}),
        (reply(403, b"Forbidden here"), {"code": 403, "data": None, "message": "Forbidden here"}),
        (
            reply(403, b"<html>no</html>"),
            {"code": 403, "data": None, "message": "HTTP 403 from the provider"},
        ),
        (reply(402), {"code": 402, "data": None, "message": "HTTP 402 from the provider"}),
        (reply(200, payload("error_code_message")), {"code": 400, "message": "invalid task type"}),
    ],
)
async def test_a_refusal_has_the_providers_own_message_and_body(
    server: FakeServer, piapi: PiAPI, answer: bytes, body: dict[str, Any]
) -> None:
    server.responds(answer)
    outcome = await piapi.submit(TASK)
    assert outcome == Refused(body["code"], body["message"], body)


ERRORS_IN_A_SUCCESS = [
    ({"code": 1102, "message": "account balance not enough"}, 402, "account balance not enough"),
    ({"code": 0, "data": None, "message": "insufficient credits"}, 402, "insufficient credits"),
    ({"code": "1102", "data": {}, "message": "account balance not enough"}, 402, "account balance not enough"),
    ({"code": 1102, "data": {"task_id": ""}, "message": "insufficient credits, try again"}, 402, None),
    ({"code": 10001, "message": "the prompt is not allowed"}, 400, "the prompt is not allowed"),
    ({"code": -1, "msg": "no such model"}, 400, "no such model"),
    ({"code": "InvalidParameter", "message": "no such model"}, 400, "no such model"),
    ({"data": None, "message": "no such model"}, 400, "no such model"),
    ({"error": {"code": "E1", "message": "no such model"}}, 400, "no such model"),
    ({"error": "no such model", "code": 200}, 400, "no such model"),
    ({"errors": [{"loc": ["body", "input"], "msg": "field required"}]}, 400, "body.input: field required"),
    ({"success": False, "message": "quota exceeded"}, 402, "quota exceeded"),
    ({"success": "false", "message": "no such model"}, 400, "no such model"),
    ({"error": True, "message": "no such model"}, 400, "no such model"),
    ({"error_code": 5, "error_msg": "no such model"}, 400, "no such model"),
    ({"code": 4001, "data": "no such model", "message": ""}, 400, "no such model"),
    ({"code": 200, "data": {"status": "failed", "error": {"code": 5, "message": "no face"}}}, 400, "no face"),
]


@pytest.mark.parametrize(("body", "status", "message"), ERRORS_IN_A_SUCCESS)
async def test_an_error_inside_a_success_is_a_refusal_with_its_words(
    server: FakeServer, piapi: PiAPI, body: dict[str, Any], status: int, message: str | None
) -> None:
    server.responds(reply(200, body))
    outcome = await piapi.submit(TASK)
    assert isinstance(outcome, Refused)
    assert outcome.status == status
    assert outcome.message == (message or body["message"])
    is_in_form = isinstance(body.get("code"), int) and "message" in body
    assert outcome.body == (body if is_in_form else {"code": status, "data": None, "message": outcome.message})


UNTOLD = [
    {"code": 200, "message": "account balance not enough"},
    {"code": 0, "data": {}, "message": "please wait"},
    {"code": 1, "message": "success"},
    {"code": 201, "message": "created"},
    {"code": 10001, "message": "upstream timed out"},
    {"code": 10001, "message": "internal error, try again later"},
    {"code": 10001},
    {"data": None, "message": "Task submitted"},
    {"message": "hello"},
    {"error": None, "message": "ok"},
    {"error": "none"},
    {"success": True},
    {"data": {"queue": 3}},
    ["no such model"],
    "no such model",
]


@pytest.mark.parametrize("body", UNTOLD)
async def test_a_success_without_a_task_that_is_not_plainly_an_error_is_unknown(
    server: FakeServer, piapi: PiAPI, body: Any
) -> None:
    server.responds(reply(200, body))
    assert isinstance(await piapi.submit(TASK), UnknownOutcome)


async def test_a_rate_limit_inside_a_success_made_nothing(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, {"code": 1302, "message": "rate limit reached"}, retry_after="4"))
    assert await piapi.submit(TASK) == NotMade("rate limit reached", 4)


async def test_what_a_refusal_says_besides_its_message_is_its_detail(server: FakeServer, piapi: PiAPI) -> None:
    body = {"detail": [{"loc": ["body", "input"], "msg": "field required", "type": "missing"}]}
    server.responds(reply(422, body))
    outcome = await piapi.submit(TASK)
    assert isinstance(outcome, Refused)
    assert (outcome.message, outcome.detail) == ("body.input: field required", body)
    server.responds(reply(400, {"code": 400, "data": None, "message": "m", "trace": "x" * 5000}))
    large = await piapi.submit(TASK)
    assert isinstance(large, Refused)
    assert large.detail is None


WRONG_KEY = [
    reply(401, payload("error_error")),
    reply(401),
    reply(403, {"message": "Invalid API key"}),
    reply(403, {"error": {"message": "the API key was not found"}}),
    reply(200, {"code": 401, "message": "unauthorized"}),
    reply(200, {"code": 10002, "message": "invalid api key"}),
]


@pytest.mark.parametrize("answer", WRONG_KEY)
async def test_a_refusal_of_ringback_s_own_key_is_told_from_one_of_the_client_s(
    server: FakeServer, piapi: PiAPI, answer: bytes
) -> None:
    server.responds(answer)
    for outcome in (await piapi.submit(TASK), await piapi.cancel("a")):
        assert isinstance(outcome, Refused)
        assert (outcome.status, outcome.code, outcome.body["code"]) == (502, "provider_unauthorized", 502)
        assert "RINGBACK_PIAPI_API_KEY" in outcome.message
        assert outcome.body["message"] == outcome.message
        assert outcome.body["error"] == {"code": "provider_unauthorized"}
    polled = await piapi.fetch("a", attempt=1)
    assert isinstance(polled, NoAnswer)
    assert "RINGBACK_PIAPI_API_KEY" in polled.message
    status, body = await piapi.account_info()
    assert (status, body["error"]["code"]) == (502, "provider_unauthorized")


async def test_a_403_that_does_not_speak_of_the_key_is_passed_on(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(403, {"code": 403, "message": "your plan does not include this model"}))
    outcome = await piapi.submit(TASK)
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.code) == (403, None)


@pytest.mark.parametrize("status", [425, 429, 503])
async def test_a_task_that_was_turned_away_was_not_made(server: FakeServer, status: int) -> None:
    server.responds(reply(status, {"message": "later"}, retry_after="7"))
    async with opened(server.url) as piapi:
        assert await piapi.submit(TASK) == NotMade("later", 7)


async def test_a_429_in_the_envelope_is_a_rate_limit(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, {"code": 429, "message": "slow down"}))
    assert await piapi.submit(TASK) == NotMade("slow down", None)


async def test_retry_after_may_be_a_date(server: FakeServer, piapi: PiAPI) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(hours=9), usegmt=True)
    server.responds(reply(503, retry_after=at))
    outcome = await piapi.submit(TASK)
    assert isinstance(outcome, NotMade)
    assert outcome.retry_after == 3600


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (429, {"retry_after": "60"}), (503, {"retry_after": "60"})])
async def test_a_429_pauses_all_calls(server: FakeServer, status: int, headers: dict[str, str]) -> None:
    server.responds(reply(status, **headers))
    rate_limiter = RateLimiter(1000)
    async with opened(server.url, rate_limiter=rate_limiter) as piapi:
        await piapi.fetch("a", attempt=1)
        assert 0 < rate_limiter.paused_for() <= 60
        if headers:
            outcome = await piapi.submit(TASK)
            assert isinstance(outcome, NotMade)
            assert outcome.retry_after is not None
            assert len(server.requests) == 1


async def test_each_call_takes_a_token(server: FakeServer) -> None:
    class Counting(RateLimiter):
        taken = 0

        async def acquire(self, caller: Hashable = None) -> None:
            self.taken += 1

    server.responds(reply(200, {"code": 200, "data": []}))
    rate_limiter = Counting(1)
    async with opened(server.url, rate_limiter=rate_limiter) as piapi:
        await piapi.submit(TASK)
        await piapi.fetch("a", attempt=1)
        await piapi.cancel("a")
        await piapi.history(model="m", since=datetime.now(UTC))
        await piapi.account_info()
    assert rate_limiter.taken == len(server.requests) == 5


async def test_a_refused_connection_made_nothing() -> None:
    with socket.socket() as held:
        # Bound but not listening: no other process can take the port, and connections are refused.
        held.bind(("127.0.0.1", 0))
        async with opened(f"http://127.0.0.1:{held.getsockname()[1]}") as piapi:
            assert isinstance(await piapi.submit(TASK), NotMade)
            assert isinstance(await piapi.fetch("a", attempt=1), NoAnswer)
            assert isinstance(await piapi.cancel("a"), NoAnswer)
            assert not (await piapi.history(model="m", since=datetime.now(UTC))).is_complete
            status, body = await piapi.account_info()
            assert (status, body["code"]) == (502, 502)


async def test_a_missing_response_is_unknown(server: FakeServer) -> None:
    async with opened(server.url, patience=0.5) as piapi:
        # Connected already, so that only the wait for the response can time out.
        server.responds(reply(404))
        await piapi.fetch("a", attempt=1)
        server.responds(HANG)
        assert isinstance(await piapi.submit(TASK), UnknownOutcome)
        outcomes = await asyncio.gather(piapi.fetch("a", attempt=1), piapi.cancel("a"))
    assert all(isinstance(outcome, NoAnswer) for outcome in outcomes)


async def test_a_response_that_is_too_large_is_not_read(
    server: FakeServer, piapi: PiAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.providers.piapi.calls.LARGEST_RESPONSE", 1000)
    server.responds(reply(200, b" " * 1001))
    assert isinstance(await piapi.submit(TASK), UnknownOutcome)


def packed(body: bytes, encoding: str) -> bytes:
    """Return a response whose body has that content encoding."""
    return reply(
        200, gzip.compress(body) if "gzip" in encoding.lower() else zlib.compress(body), content_encoding=encoding
    )


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate"])
async def test_a_packed_response_is_unpacked(server: FakeServer, piapi: PiAPI, encoding: str) -> None:
    server.responds(packed(payload("created"), encoding))
    assert isinstance(await piapi.submit(TASK), Accepted)
    assert isinstance(await piapi.fetch(CREATED_ID, attempt=1), Found)


async def test_a_response_that_only_claims_to_be_packed_by_an_unknown_encoding_is_read(
    server: FakeServer, piapi: PiAPI
) -> None:
    server.responds(reply(200, payload("created"), content_encoding="aws-chunked"))
    assert isinstance(await piapi.submit(TASK), Accepted)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_response_that_unpacks_to_too_much_is_not_unpacked_and_takes_no_memory(
    server: FakeServer, piapi: PiAPI, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("receiver.providers.piapi.calls.LARGEST_RESPONSE", 1 << 20)
    answer = packed(bytes(100 << 20), encoding)
    server.responds(answer)
    tracemalloc.start()
    try:
        assert isinstance(await piapi.submit(TASK), UnknownOutcome)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(await piapi.fetch("a", attempt=1), NoAnswer)


@pytest.mark.parametrize("number", range(11))
async def test_responses_with_odd_bytes_are_read(server: FakeServer, piapi: PiAPI, number: int) -> None:
    task = {"task_id": "t", "status": "completed", "output": {"image_url": "https://x.example/a.png", "note": "@"}}
    body = odd_bodies(orjson.dumps({"code": 200, "data": task, "message": "success"}))[number]
    server.responds(reply(200, body))
    accepted, found = await piapi.submit(TASK), await piapi.fetch("t", attempt=1)
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
        assert isinstance(await piapi.fetch("a", attempt=1), NoAnswer)
        assert isinstance(await piapi.cancel("a"), Refused)
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
        found = await piapi.fetch("ab-123456-cd", attempt=1, hidden="x" * 43)
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
            assert KEY not in repr(await piapi.fetch("a", attempt=1))
            assert KEY not in repr(await piapi.cancel("a"))
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
    outcome = await piapi.fetch(CREATED_ID, attempt=4)
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
    assert isinstance(await piapi.fetch("a", attempt=1), Missing)
    assert isinstance(await piapi.cancel("a"), Missing)


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
    assert isinstance(await piapi.fetch("a", attempt=1), NoAnswer)


@pytest.mark.parametrize("answer", [reply(404), reply(404, b"<html>")])
async def test_a_404_without_the_providers_words_is_no_answer_to_a_poll_and_the_end_of_a_cancel(
    server: FakeServer, piapi: PiAPI, answer: bytes
) -> None:
    server.responds(answer)
    assert isinstance(await piapi.fetch("a", attempt=1), NoAnswer)
    assert isinstance(await piapi.cancel("a"), Missing)


async def test_no_answer_has_the_retry_after(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(503, {"message": "later"}, retry_after="9"))
    assert await piapi.fetch("a", attempt=1) == NoAnswer("later", 9)


@pytest.mark.parametrize("task_id", ["../tasks", "a/b?c=d#e", "ü \n"])
async def test_an_id_stays_one_segment_of_the_path(server: FakeServer, piapi: PiAPI, task_id: str) -> None:
    server.responds(reply(200, {"code": 200, "data": {"task_id": task_id}}))
    assert isinstance(await piapi.fetch(task_id, attempt=1), Found)
    assert server.requests[0].path.count("/") == 4
    assert server.requests[0].query == {}


@pytest.mark.parametrize("task_id", ["", ".", ".."])
async def test_no_call_is_made_for_an_id_of_dots(server: FakeServer, piapi: PiAPI, task_id: str) -> None:
    assert isinstance(await piapi.fetch(task_id, attempt=1), Missing)
    assert isinstance(await piapi.cancel(task_id), Missing)
    assert server.requests == []


@pytest.mark.parametrize(
    "answer", [reply(200, {"code": 200, "message": "success"}), reply(200, {"code": 0}), reply(204)]
)
async def test_a_task_is_cancelled(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    assert isinstance(await piapi.cancel("a"), Cancelled)
    assert (server.requests[0].method, server.requests[0].target) == ("DELETE", "/api/v1/task/a")


@pytest.mark.parametrize("status", [200, 400])
async def test_a_cancellation_is_refused(server: FakeServer, piapi: PiAPI, status: int) -> None:
    body = {"code": 400, "message": "only a pending task can be cancelled"}
    server.responds(reply(status, body))
    assert await piapi.cancel("a") == Refused(400, body["message"], body)  # type: ignore[arg-type]


async def test_a_cancellation_is_refused_by_an_error_inside_a_success(server: FakeServer, piapi: PiAPI) -> None:
    server.responds(reply(200, {"code": 10, "message": "the task cannot be cancelled"}))
    outcome = await piapi.cancel("a")
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.message) == (400, "the task cannot be cancelled")


@pytest.mark.parametrize("answer", [reply(429, retry_after="0"), reply(500), reply(200, b"<html>"), b""])
async def test_a_cancellation_without_an_answer(server: FakeServer, piapi: PiAPI, answer: bytes) -> None:
    server.responds(answer)
    assert isinstance(await piapi.cancel("a"), NoAnswer)


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
        await piapi.fetch(CREATED_ID, attempt=1)
    assert len(server._connections) == 1


async def test_an_adapter_that_never_called_can_be_closed() -> None:
    async with opened("http://127.0.0.1:9"):
        pass
