"""Errors as HTTP responses: Pi's fields (`receiver/api/CONTRACTS.md`), and PiAPI's simpler form."""

from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from receiver.api.dialects import (
    LARGEST_REFUSAL,
    LONGEST_MESSAGE,
    NATIVE,
    PIAPI,
    REPLICATE,
    bounded_refusal,
    dialect_of,
    nothing_at,
)
from receiver.api.endpoint import check
from receiver.domain.graph import StepSpec, check_graph
from receiver.errors import (
    BadRequest,
    Conflict,
    OutcomeUnknown,
    ProviderRefused,
    RateLimited,
    RingbackError,
    StorageUnavailable,
)


def bad_graph() -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        check_graph([StepSpec(id="a", action="x", depends_on=("a", "b"))])
    return caught.value


def error_body(error: RingbackError) -> dict[str, Any]:
    answer = NATIVE.error(error, "req_pi_1")
    assert answer.status_code == error.status
    body = orjson.loads(bytes(answer.body))
    assert body.keys() == {"error"}
    assert body["error"]["request_id"] == answer.headers["x-request-id"] == "req_pi_1"
    return dict(body["error"])


def test_all_faults_of_a_run_are_listed_in_issues() -> None:
    error = error_body(bad_graph())
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_run_dag")
    assert [issue["code"] for issue in error["issues"]] == ["self_dependency", "unknown_dependency"]
    assert error["issues"][0].keys() == {"code", "message", "step_id", "param"}
    assert error["param"] == error["issues"][0]["param"] == "steps[0].depends_on"


@pytest.mark.parametrize(
    "error",
    [RateLimited("too many", retry_after=7), StorageUnavailable("gone", retry_after=7)],
    ids=["429", "503"],
)
def test_retry_after_is_in_the_header_and_in_pi_s_body(error: RingbackError) -> None:
    assert error_body(error)["retry_after"] == 7
    for dialect in (NATIVE, PIAPI):
        assert dialect.error(error, "req_pi_1").headers["retry-after"] == "7"


def test_what_an_error_does_not_have_is_left_out() -> None:
    assert error_body(BadRequest("no")).keys() == {"type", "code", "message", "request_id"}
    assert "retry-after" not in NATIVE.error(BadRequest("no"), "req_pi_1").headers


class Given(BaseModel):
    """Something that a client sends."""

    model: str
    size: int


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 1}, "model: Field required"),
        ({}, "model: Field required; size: Field required"),
    ],
)
def test_a_wrong_field_is_named_once_in_every_dialect(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check(Given, given)
    assert orjson.loads(bytes(PIAPI.error(caught.value, "req_pi_1").body))["message"] == message
    error = error_body(caught.value)
    assert (error["message"], error["param"]) == (message, "model")


def test_piapi_s_message_starts_with_the_field() -> None:
    answer = PIAPI.error(BadRequest("is not there", param="model"), "req_pi_1")
    assert orjson.loads(bytes(answer.body)) == {"code": 400, "data": None, "message": "model: is not there"}


def test_a_refusal_of_ringback_s_own_key_is_not_the_client_s_fault() -> None:
    own = ProviderRefused("mend the key", status=502, body={"code": 502}, code="provider_unauthorized")
    error = error_body(own)
    assert (error["type"], error["code"]) == ("api_error", "provider_unauthorized")
    of_the_request = error_body(ProviderRefused("no", status=400))
    assert (of_the_request["type"], of_the_request["code"]) == ("invalid_request_error", "provider_refused")


def test_a_provider_s_refusal_is_passed_on_unchanged_unless_it_is_large() -> None:
    small = {"code": 400, "message": "no", "error": {"raw_message": "y" * 1000}}
    answer = PIAPI.error(ProviderRefused("no", status=400, body=small), "req_pi_1")
    assert orjson.loads(bytes(answer.body)) == small
    large = {"code": 40001, "message": "\x00" * 1_000_000, "error": {"raw_message": "y" * 1_000_000}}
    answer = PIAPI.error(ProviderRefused("no", status=400, body=large), "req_pi_1")
    body = orjson.loads(bytes(answer.body))
    assert (answer.status_code, body["code"], body["data"]) == (400, 40001, None)
    assert body["message"].startswith("\x00\x00")
    assert len(body["message"]) == LONGEST_MESSAGE
    assert len(answer.body) <= LARGEST_REFUSAL
    without_words = bounded_refusal({"error": "y" * 1_000_000}, 403, "refused")
    assert without_words == {"code": 403, "data": None, "message": "refused"}


def test_a_refusal_with_a_status_that_http_does_not_know_is_a_problem() -> None:
    answer = REPLICATE.error(ProviderRefused("closed", status=499), "req_pi_1")
    assert answer.status_code == 499
    body = {"title": "Refused", "detail": "closed", "status": 499, "code": "provider_refused"}
    assert orjson.loads(bytes(answer.body)) == body


def test_a_problem_of_replicate_without_a_title_gets_one() -> None:
    own = {"detail": "The requested resource could not be found.", "status": 404, "extra": [1]}
    answer = REPLICATE.error(ProviderRefused("no", status=404, body=own), "req_pi_1")
    assert orjson.loads(bytes(answer.body)) == {"title": "Not Found", **own}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RingbackError("a fault"), "false"),
        (OutcomeUnknown(), "false"),
        (ProviderRefused("no key", status=502), "false"),
        (Conflict("it has ended"), "false"),
        (RateLimited("too many", retry_after=7), None),
        (StorageUnavailable("gone"), None),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_replicate_s_client_repeats_only_what_stored_nothing(error: RingbackError, said: str | None) -> None:
    assert REPLICATE.error(error, "req_pi_1").headers.get("x-should-retry") == said


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/files", "base64"),
        ("/v1/files/abc", "base64"),
        ("/v1/trainings", "there are predictions"),
        ("/v1/models/acme/upscaler", "there are predictions"),
        ("/v1/v1/predictions", "without /v1"),
        ("/predictions", "with /v1"),
        ("/models/acme/upscaler/predictions", "with /v1"),
    ],
)
def test_replicate_s_clients_are_told_what_to_do_at_a_path_that_is_not_there(path: str, words: str) -> None:
    assert dialect_of(path) is REPLICATE
    assert words in nothing_at(path)
    assert nothing_at("/api/v1/nothing") == "there is nothing at this path"
