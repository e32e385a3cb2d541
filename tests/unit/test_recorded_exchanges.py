"""What providers answered, as public documentation and clients' tests show it, is read as it is meant.

Each exchange in `tests/payloads/providers` has its source; where that shows no status of HTTP, `is_status_shown` is
false, and the status is the one that follows from the rest.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest

from receiver.domain.updates import ProviderUpdate
from receiver.providers.api import API, Request
from receiver.providers.base import Accepted, Found, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.outcomes import cancel_outcome, fetch_outcome, result_outcome, submit_outcome
from receiver.providers.registry import APIS
from receiver.providers.reports import told_wait
from receiver.providers.webhook_outcomes import LookNow, Signature

FOLDER = Path(__file__).parent.parent / "payloads" / "providers"
EXCHANGES = [
    pytest.param(name, exchange, id=f"{name}: {exchange['name']}")
    for name in sorted(APIS.keys() - {"pi"})  # whose have a test of their own
    for exchange in orjson.loads((FOLDER / f"{name}.json").read_bytes())
]
SIGNED = [each for each in EXCHANGES if "secret" in each.values[1]]  # type: ignore[operator]


def read(api: API, exchange: dict[str, Any]) -> Any:
    """Return what an exchange comes to."""
    given = {"id": "any", "model": "any/model", "task_type": "", **exchange.get("task", {})}
    new = NewTask(model=given["model"], task_type=given["task_type"], input={})
    known = ProviderTask(given["id"], None, given["model"], given["task_type"])
    answer = CallResponse(exchange.get("status", 200), exchange["body"], "", None)
    match exchange["call"]:
        case "create":
            return submit_outcome(answer, api, new, "default")
        case "look":
            return fetch_outcome(answer, api, known, "default")
        case "result":
            return result_outcome(answer, api, known, CallResponse(200, {"status": "COMPLETED"}, "", None), "default")
        case "cancel":
            return cancel_outcome(answer, api, "default")
        case "webhook":
            return api.parse_webhook(exchange["body"])
    raise AssertionError(exchange["call"])


@pytest.mark.parametrize(("name", "exchange"), [each for each in EXCHANGES if each.values[1]["call"] != "signature"])  # type: ignore[index]
def test_each_recorded_exchange_is_read_as_it_is_meant(name: str, exchange: dict[str, Any]) -> None:
    expected = dict(exchange["reads_as"])
    outcome = read(APIS[name], exchange)
    assert type(outcome).__name__ == expected.pop("outcome")
    if "never" in expected:
        assert expected.pop("never") not in str(outcome)
    if isinstance(outcome, Accepted | Found | ProviderUpdate):
        update = outcome if isinstance(outcome, ProviderUpdate) else outcome.update
        assert expected.pop("message", "") in str((update.error or {}).get("message"))
        assert expected.pop("output", "") in str(update.output)
        assert (update.error is not None) == (update.status == "failed")
        outcome = update
    elif "message" in expected:
        assert expected.pop("message") in outcome.message
    assert {field: getattr(outcome, field) for field in expected} == expected


@pytest.mark.parametrize(("name", "exchange"), SIGNED)
def test_the_vectors_of_public_clients_have_a_good_signature(name: str, exchange: dict[str, Any]) -> None:
    headers = [(field.encode(), value.encode()) for field, value in exchange["headers"].items()]
    signed_at = float(exchange["headers"]["webhook-timestamp"])
    secret = exchange["secret"]

    def verify(body: str, now: float) -> Signature:
        credentials, keys = {"webhook_secret": secret}, {"key": secret}
        return APIS[name].verify(body.encode(), headers, credentials=credentials, keys=keys, now=now)

    assert verify(exchange["raw_body"], signed_at) == Signature.VALID
    assert verify(exchange["raw_body"] + " ", signed_at) == Signature.WRONG
    assert verify(exchange["raw_body"], signed_at + 301) == Signature.WRONG


@pytest.mark.parametrize(
    ("name", "exchange", "seconds"),
    [
        ("gemini", "the quota is used up, and the wait stands in the body", 57.238747106),
        ("replicate", "too many calls are made", 5.0),
    ],
)
def test_the_wait_that_stands_in_a_body_is_read(name: str, exchange: str, seconds: float) -> None:
    recorded = orjson.loads((FOLDER / f"{name}.json").read_bytes())
    (body,) = (each["body"] for each in recorded if each["name"] == exchange)
    assert told_wait(body) == seconds


@pytest.mark.parametrize(
    "body", [None, [], "57s", {"error": {"details": [{"retryDelay": "-1s"}]}}, {"retry_after": {}}]
)
def test_a_body_that_names_no_wait_has_none(body: Any) -> None:
    assert told_wait(body) is None


def test_an_event_that_is_about_no_task_is_only_acknowledged() -> None:
    for name, kind in (("openai", "fine_tuning.job.succeeded"), ("gemini", "model.retired")):
        outcome = APIS[name].parse_webhook({"id": "evt_1", "type": kind, "data": {"id": "ftjob_1"}})
        assert not isinstance(outcome, LookNow | ProviderUpdate)


def test_a_jwt_of_gemini_s_is_not_believed_and_the_task_asked_for() -> None:
    headers = [(b"webhook-signature", b"eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl")]
    assert APIS["gemini"].verify(b"{}", headers, credentials={}, keys=None, now=0.0) == Signature.UNCHECKED


def test_a_key_in_the_address_of_a_video_is_taken_out() -> None:
    uri = "https://generativelanguage.googleapis.com/v1beta/files/X:download?alt=media&key=AIzaNotToBeShown"
    done = {"done": True, "response": {"generateVideoResponse": {"generatedSamples": [{"video": {"uri": uri}}]}}}
    task = ProviderTask("models/veo/operations/1")
    outcome = fetch_outcome(CallResponse(200, done, "", None), APIS["gemini"], task, "default")
    assert not isinstance(outcome, Request)
    assert "alt=media" in str(outcome)
    assert "AIza" not in str(outcome)


def test_our_reference_is_sent_with_a_create_of_openai_s_and_read_from_what_it_made() -> None:
    own = {"input": "a cat", "metadata": {"run": "7"}}
    task = NewTask(model="gpt-5-mini", task_type="response", input=own, reference="reference-1")
    sent = APIS["openai"].create(task).body
    assert sent == {"model": "gpt-5-mini", "background": True, "input": "a cat", "metadata": sent["metadata"]}
    assert sent["metadata"].items() > own["metadata"].items()  # type: ignore[attr-defined]
    answer = CallResponse(200, {"id": "resp_1", "status": "queued", "metadata": sent["metadata"]}, "", None)
    assert APIS["openai"].read_created(answer, task).reference == "reference-1"


def test_metadata_that_is_full_is_sent_as_it_is() -> None:
    full = {"input": "a cat", "metadata": {f"name{n}": "x" for n in range(16)}}
    task = NewTask(model="gpt-5-mini", task_type="response", input=full, reference="reference-1")
    assert APIS["openai"].create(task).body["metadata"] == full["metadata"]


def test_a_batch_of_which_every_request_failed_has_failed() -> None:
    counts = {"total": 2, "completed": 0, "failed": 2}
    body = {"id": "batch_1", "status": "completed", "error_file_id": "file-2", "request_counts": counts}
    outcome = fetch_outcome(CallResponse(200, body, "", None), APIS["openai"], ProviderTask("batch_1"), "default")
    assert isinstance(outcome, Found)
    assert (outcome.update.status, outcome.update.progress) == ("failed", 100)
    assert outcome.update.output is not None
    assert outcome.update.output["error_file_url"].endswith("/v1/files/file-2/content")


def test_an_incomplete_response_fails_with_its_part_and_is_not_tried_again() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "Once upon"}]}
    details = {"reason": "max_output_tokens"}
    body = {"id": "resp_1", "status": "incomplete", "output": [item], "incomplete_details": details}
    outcome = fetch_outcome(CallResponse(200, body, "", None), APIS["openai"], ProviderTask("resp_1"), "default")
    assert isinstance(outcome, Found)
    update = outcome.update
    assert (update.status, update.retryable) == ("failed", False)
    assert "max_output_tokens" in str(update.error)
    assert (update.output or {})["output_text"] == "Once upon"
