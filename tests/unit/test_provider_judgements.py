"""What single answers and webhooks of the providers in code come to, where a mistake would lose or double a task."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from models import TaskStatus
from receiver.providers import Found, NewTask, NoAnswer, ProviderTask, Refused, Signature, UnknownOutcome
from receiver.providers.api import API, CannotAsk, Request, Window
from receiver.providers.calls import CallResponse
from receiver.providers.outcomes import fetch_outcome, result_outcome, submit_outcome
from receiver.providers.registry import APIS

FAL, GEMINI, OPENAI, REPLICATE = (APIS[name] for name in ("fal", "gemini", "openai", "replicate"))
NEW = NewTask(model="owner/model", task_type="", input={})
VIDEO = "models/veo/operations/1"
WRONG_KEY = {"code": 400, "message": "API key not valid", "details": [{"reason": "API_KEY_INVALID"}]}
UNPAID = {"code": 9, "status": "FAILED_PRECONDITION", "message": "enable billing to use this model"}
QUOTA = {"code": "insufficient_quota", "message": "You exceeded your current quota"}


def answer(status: int, body: Any, text: str = "") -> CallResponse:
    return CallResponse(status, body, text, None, 100)


@pytest.mark.parametrize(
    ("api", "task", "body"),
    [
        (OPENAI, ProviderTask("resp_1"), {"id": "resp_1", "status": "failed", "error": QUOTA}),
        (GEMINI, ProviderTask(VIDEO), {"name": VIDEO, "done": True, "error": WRONG_KEY}),
        (GEMINI, ProviderTask(VIDEO), {"name": VIDEO, "done": True, "error": UNPAID}),
        (
            APIS["pi"],
            ProviderTask("j", {"kind": "job"}),
            {"data": {"id": "j", "status": "failed"}, "error": {"code": "job_trigger_failed"}},
        ),
    ],
)
def test_the_error_of_a_task_that_has_failed_is_not_taken_for_that_of_the_call(
    api: API, task: ProviderTask, body: dict[str, Any]
) -> None:
    outcome = fetch_outcome(answer(200, body), api, task, "default")
    assert isinstance(outcome, Found)
    assert outcome.update.status == TaskStatus.FAILED


def test_the_same_error_of_a_call_is_still_a_refusal() -> None:
    outcome = submit_outcome(answer(429, {"error": QUOTA}), OPENAI, NEW, "default")
    assert isinstance(outcome, Refused)
    assert outcome.status == 402
    outcome = submit_outcome(answer(400, {"error": WRONG_KEY}), GEMINI, NEW, "default")
    assert isinstance(outcome, Refused)
    assert outcome.code == "provider_unauthorized"


@pytest.mark.parametrize("name", APIS)
def test_a_create_call_that_the_provider_waited_for_no_longer_is_not_sent_again(name: str) -> None:
    outcome = submit_outcome(answer(408, {"error": "request timeout"}), APIS[name], NEW, "default")
    assert isinstance(outcome, UnknownOutcome)


@pytest.mark.parametrize("status", [200, 413, 451])
def test_a_gateway_s_page_is_no_result_of_a_task_at_fal(status: int) -> None:
    task = ProviderTask("r1", None, "fal-ai/flux/dev")
    look = answer(200, {"status": "COMPLETED"})
    assert isinstance(fetch_outcome(look, FAL, task, "default"), Request)
    assert isinstance(result_outcome(answer(status, None), FAL, task, look, "default"), NoAnswer)


def test_a_task_of_fal_s_whose_app_is_not_known_cannot_be_asked_for() -> None:
    with pytest.raises(CannotAsk):
        FAL.look(ProviderTask("r1"))


@pytest.mark.parametrize(
    ("api", "model"),
    [(FAL, "../x"), (FAL, "fal-ai/flux/.."), (REPLICATE, "deployments/../models"), (REPLICATE, "../x:1")],
)
def test_no_part_of_a_model_leads_elsewhere(api: API, model: str) -> None:
    with pytest.raises(CannotAsk, match="model must be"):
        api.create(NewTask(model=model, task_type="", input={}))


@pytest.mark.parametrize(
    ("asked", "model", "version", "may_be"),
    [
        ("owner/model", "owner/model", "hidden", True),
        ("owner/model", "Owner/Model", "d-1", True),
        ("owner/model", "owner/other", "hidden", False),
        ("owner/model", "replicate-internal/model-fp8", "hidden", True),
        ("owner/model", None, None, True),
        (f"owner/model:{'a' * 64}", "owner/model", "a" * 64, True),
        (f"owner/model:{'a' * 64}", "owner/model", "b" * 64, False),
        ("a" * 64, "owner/model", "a" * 64, True),
        ("a" * 64, "owner/model", "b" * 64, False),
        ("a" * 64, "owner/model", "hidden", True),
        ("deployments/owner/own", "owner/model", "b" * 64, True),
    ],
)
def test_a_prediction_of_another_model_is_not_taken_for_a_lost_create_with_the_same_input(
    asked: str, model: str | None, version: str | None, *, may_be: bool
) -> None:
    item = {"id": "p1", "status": "starting", "model": model, "version": version, "input": {"prompt": "a cat"}}
    page = REPLICATE.read_page(
        answer(200, {"results": [item], "next": None}), Window(asked, datetime(2026, 1, 1, tzinfo=UTC))
    )
    assert page.tasks == ([item] if may_be else [])


def test_a_client_cannot_name_another_s_task_in_the_metadata_of_its_own() -> None:
    metadata = {**{f"n{number}": "" for number in range(15)}, "ringback_task": "another"}
    new = NewTask(model="gpt-5", task_type="response", input={"metadata": metadata}, reference="own")
    assert OPENAI.create(new).body["metadata"] == {**metadata, "ringback_task": "own"}


@pytest.mark.parametrize("api", [OPENAI, REPLICATE, GEMINI, FAL], ids=lambda api: api.name)
@pytest.mark.parametrize("text", [b"\xe9", b"=", b"A", b"\xff\xfe", b"v1", b""])
def test_a_signature_that_is_no_text_of_its_form_is_wrong_and_raises_nothing(api: API, text: bytes) -> None:
    now = str(int(time.time())).encode()
    headers = [
        *(
            (b"webhook-id", b"\xe9"),
            (b"webhook-timestamp", now),
            (b"webhook-signature", b"v1,%b v1a,%b" % (text, text)),
        ),
        *((b"x-fal-webhook-request-id", b"\xe9"), (b"x-fal-webhook-user-id", b"u"), (b"x-fal-webhook-timestamp", now)),
        (b"x-fal-webhook-signature", text),
    ]
    keys = {"key": "whsec_bm90IGEgc2VjcmV0IG9mIGFueWJvZHk=", "keys": [{"x": "AAAA"}, {"x": "\xe9"}, None]}
    secrets = {"webhook_secret": "whsec_bm90IGEgc2VjcmV0IG9mIGFueWJvZHk="}
    assert api.verify(b"{}", headers, credentials=secrets, keys=keys, now=time.time()) == Signature.WRONG
