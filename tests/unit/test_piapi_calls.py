"""Failures of calls to PiAPI, and errors inside its successful responses."""

from typing import Any

import httpx
import pytest

from receiver.providers import FailedAttempt, Missing, NoAnswer, NotMade, Refused, UnknownOutcome
from receiver.providers.calls import NotSent, ResponseLost, headers_read
from receiver.providers.piapi.calls import Calls, PiAPIResponse
from receiver.providers.piapi.outcomes import cancel_outcome, fetch_outcome, submit_outcome
from receiver.providers.rate_limiter import RateLimiter

KEY = "planted-key-0123456789"


class _Failing(Calls):
    """Calls that end in an exception."""

    def __init__(self, error: Exception) -> None:
        super().__init__(base_url="http://127.0.0.1:9", api_key=KEY, timeout=1, rate_limiter=RateLimiter(100))
        self._error = error

    async def _exchange(self, *_: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "kind",
    [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol],
)
async def test_a_request_that_was_not_sent_made_nothing(kind: type[httpx.TransportError]) -> None:
    outcome = await _Failing(kind(f"x-api-key: {KEY}")).call("POST", "/")
    assert isinstance(outcome, NotSent)
    assert isinstance(submit_outcome(outcome), NotMade)
    assert isinstance(cancel_outcome(outcome), NoAnswer)
    assert KEY not in outcome.message


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout(KEY),
        httpx.WriteTimeout(KEY),
        httpx.ReadError(KEY),
        httpx.WriteError(KEY),
        httpx.CloseError(KEY),
        httpx.RemoteProtocolError(KEY),
        httpx.LocalProtocolError(KEY),
        httpx.DecodingError(KEY),
        httpx.InvalidURL(KEY),
        ConnectionResetError(KEY),
        TimeoutError(KEY),
    ],
)
async def test_a_request_that_may_have_been_sent_is_unknown(error: Exception) -> None:
    outcome = await _Failing(error).call("POST", "/")
    assert isinstance(outcome, ResponseLost)
    assert isinstance(submit_outcome(outcome), UnknownOutcome)
    assert isinstance(cancel_outcome(outcome), NoAnswer)
    assert KEY not in outcome.message


@pytest.mark.parametrize(
    ("body", "effective_status"),
    [
        ({"code": 0}, 200),
        ({"code": 200}, 200),
        ({"code": "200"}, 200),
        ({"code": 404}, 404),
        ({"code": 10001}, None),
        ({"code": True}, None),
        ({"code": "x"}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_envelopes_code_counts_where_the_http_status_is_success(body: Any, effective_status: int | None) -> None:
    assert PiAPIResponse(200, body, "", None).effective_status == effective_status
    assert PiAPIResponse(500, body, "", None).effective_status == 500


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "a", "error": "b"}, "a"),
        ({"message": "", "error": "b"}, "b"),
        ({"error": {"message": "c"}}, "c"),
        ({"description": "d"}, "d"),
        ({"detail": "e"}, "e"),
        ({"detail": ["f"]}, "f"),
        ({"detail": [{"loc": ["body", "input"], "msg": "field required"}]}, "body.input: field required"),
        ({"detail": [{"loc": ["body", 0, "x"], "msg": "bad"}, {"msg": "worse"}]}, "body.0.x: bad; worse"),
        ({"errors": [{"message": "h"}, "i"]}, "h; i"),
        ({"errors": {"prompt": ["j", "k"], "n": 3}}, "prompt: j; k"),
        ({"title": "Forbidden", "detail": "no credit", "status": 403}, "no credit"),
        ({"title": "Forbidden", "status": 403}, "Forbidden"),
        ({"msg": "k", "code": 3}, "k"),
        ({"error": {"error": {"msg": "l"}}}, "l"),
        ({"message": "success"}, "success"),
        ({"message": "<html><head><title>502 Bad Gateway</title></head></html>"}, "502 Bad Gateway"),
        (["m", {"msg": "n"}], "m; n"),
        ({"message": 7, "error": True}, "HTTP 400 from the provider"),
        ("g", "g"),
        (None, "HTTP 400 from the provider"),
        ({"message": "x" * 9000}, "x" * 500),
    ],
)
def test_the_providers_message_is_found_in_every_field_that_it_uses(body: Any, message: str) -> None:
    assert PiAPIResponse(400, body, "", None).message == message


EVERY_STATUS = {
    Refused: {400, 401, 402, 403, 404, 409, 422, 451, 499},
    NotMade: {425, 429, 503, 521, 523, 525, 526},
    FailedAttempt: {301, 307, 308},
    UnknownOutcome: {500, 501, 505, 507, 511, 100, 204, 302, 303, 304, 408, 502, 504, 520, 522, 524, 530, 599},
}


@pytest.mark.parametrize(
    ("status", "outcome"), [(status, kind) for kind, statuses in EVERY_STATUS.items() for status in sorted(statuses)]
)
def test_every_status_of_a_create_call_has_one_outcome(status: int, outcome: type) -> None:
    assert type(submit_outcome(PiAPIResponse(status, None, "", None))) is outcome


def test_a_task_is_sent_again_only_for_statuses_where_nothing_was_made() -> None:
    for status in range(100, 600):
        outcome = submit_outcome(PiAPIResponse(status, {"code": status, "message": "m"}, "", 3.0))
        assert isinstance(outcome, NotMade) == (status in EVERY_STATUS[NotMade])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"code": 200, "data": {"echo": "planted"}}),
        (200, {"code": 200, "data": {"task_id": "other", "status": {"planted": "planted"}}}),
        (200, {"code": 10001, "message": "too many requests: planted"}),
        (200, {"code": 404, "message": "task planted not found"}),
        (401, {"code": 401, "message": "invalid api key planted"}),
        (404, {"code": 404, "message": "task planted not found"}),
        (429, {"code": 429, "message": "planted"}),
        (500, {"code": 500, "message": "planted"}),
        (502, {"message": "planted"}),
        (503, {"message": "planted"}),
    ],
)
def test_a_log_has_the_status_and_size_of_an_answer_and_none_of_its_words(status: int, body: Any) -> None:
    response = PiAPIResponse(status, body, "", None, 123)
    outcomes = [submit_outcome(response), fetch_outcome(response, "a", attempt=1), cancel_outcome(response)]
    told = [each for each in outcomes if isinstance(each, NotMade | UnknownOutcome | NoAnswer | Missing)]
    assert told
    for each in told:
        assert "planted" not in each.for_log
        assert each.message == each.for_log or each.for_log.startswith(f"HTTP {status} with 123 bytes")
    assert NoAnswer("it is down").for_log == "it is down"


def test_the_headers_that_are_looked_at_are_read_as_httpx_reads_them() -> None:
    sent = [
        (b"Retry-After", b"7"),
        (b"content-encoding", b"gzip"),
        (b"Content-Encoding", b"deflate"),
        (b"date", b"d\xe9cembre"),
        (b"x-other", b"1"),
    ]
    headers = httpx.Headers(sent)
    assert headers_read(headers) == {name: headers[name] for name in ("retry-after", "content-encoding", "date")}
