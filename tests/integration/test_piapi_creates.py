"""What the PiAPI adapter makes of the answers to a create call, of a real server on loopback."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest

from models import TaskStatus
from receiver.domain.updates import Source
from receiver.providers import (
    Accepted,
    FailedAttempt,
    NewTask,
    NoAnswer,
    NotMade,
    ProviderTask,
    Refused,
    UnknownOutcome,
)
from receiver.providers.piapi import PiAPI
from receiver.telemetry.metrics import provider_calls
from tests.integration.scripted_piapi import (
    CREATED_ID,
    KEY,
    SECRET,
    TASK,
    FakeServer,
    opened,
    payload,
    reply,
)

pytestmark = pytest.mark.no_database("an adapter asks the provider alone")


def counted(call: str, outcome: str) -> float:
    value: float = provider_calls.labels("piapi", call, outcome)._value.get()
    return value


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
    for outcome in (await piapi.submit(TASK), await piapi.cancel(ProviderTask("a"))):
        assert isinstance(outcome, Refused)
        assert (outcome.status, outcome.code, outcome.body["code"]) == (502, "provider_unauthorized", 502)
        assert "RINGBACK_PIAPI_API_KEY" in outcome.message
        assert outcome.body["message"] == outcome.message
        assert outcome.body["error"] == {"code": "provider_unauthorized"}
    polled = await piapi.fetch(ProviderTask("a"), attempt=1)
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
