"""Pi's API: what is asked, and what its recorded answers and webhooks come to."""

import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from models import TaskStatus
from receiver.providers import FailedAttempt, LookNow, MalformedUpdate, NewTask, NotMade, ProviderTask, Signature
from receiver.providers.api import CannotAsk, Judgement
from receiver.providers.base import Accepted, Found, Missing
from receiver.providers.calls import CallResponse
from receiver.providers.outcomes import fetch_outcome, submit_outcome
from receiver.providers.pi import Pi

RECORDED = json.loads((Path(__file__).parent.parent / "payloads" / "providers" / "pi.json").read_text())
JOB = "7b8c9f2f-8d7a-4a39-8d8d-1cd4d11f8a7a"
RUN = "0f0a6e6a-59f3-4a6e-9b7a-0d5b1a8c7e11"
SECRET = "Gx4nVq8sLw2pTz7k"
PI = Pi()


def recorded(name: str) -> CallResponse:
    return answer(RECORDED[name]["status"], RECORDED[name]["body"])


def answer(status: int, body: Any) -> CallResponse:
    return CallResponse(status, body, "", None, 100)


def new_task(model: str = "brands.extract") -> NewTask:
    return NewTask(model=model, task_type="any", input={"url": "https://example.com"}, reference="rb-1")


def looked_at(name: str, task: ProviderTask) -> Any:
    outcome = fetch_outcome(recorded(name), PI, task, "default")
    assert isinstance(outcome, Found)
    return outcome.update


@pytest.mark.parametrize(
    ("model", "path"),
    [("runs", "/api/v1/runs"), ("brands.extract", "/api/v1/brands/extract"), ("a.b-c", "/api/v1/a/b-c")],
)
def test_the_model_is_the_path_and_the_input_is_the_body(model: str, path: str) -> None:
    request = PI.create(new_task(model))
    assert (request.method, request.url, request.body) == ("POST", path, {"url": "https://example.com"})
    assert request.headers == {"idempotency-key": "rb-1"}


@pytest.mark.parametrize("model", ["webhooks", "jobs", "brands/extract", "brands.", "../x.y", "Runs"])
def test_what_makes_no_run_and_no_job_cannot_be_asked(model: str) -> None:
    with pytest.raises(CannotAsk, match="model must be runs, or the action of a job"):
        PI.create(new_task(model))


def test_a_created_task_is_asked_for_where_its_kind_is() -> None:
    for name, model, path in (("job_created", "brands.extract", f"jobs/{JOB}"), ("run_created", "runs", f"runs/{RUN}")):
        made = submit_outcome(recorded(name), PI, new_task(model), "default")
        assert isinstance(made, Accepted)
        assert made.update.provider_task_id is not None
        assert made.update.status == TaskStatus.PENDING
        task = ProviderTask(made.update.provider_task_id, made.update.handle)
        assert PI.look(task).url == f"/api/v1/{path}"
        assert PI.look(ProviderTask(task.id, None, model)).url == f"/api/v1/{path}"


def test_what_could_not_be_started_may_be_sent_again() -> None:
    assert isinstance(submit_outcome(recorded("job_trigger_failed"), PI, new_task(), "default"), NotMade)
    page = answer(502, None)
    assert not isinstance(submit_outcome(page, PI, new_task(), "default"), NotMade | FailedAttempt)


def test_the_job_s_own_state_counts_and_not_that_of_the_request() -> None:
    update = looked_at("job_processing", ProviderTask(JOB, {"kind": "job"}))
    assert (update.status, update.output) == (TaskStatus.PROCESSING, None)


def test_a_completed_job_has_its_result_and_not_its_input() -> None:
    update = looked_at("job_completed", ProviderTask(JOB, {"kind": "job"}))
    brand = "1c26bcfa-e50e-4800-a7df-5b97db5fd50c"
    assert update.status == TaskStatus.COMPLETED
    assert update.output["result_url"] == f"brands/{brand}"
    assert update.output["job_result"]["id"] == brand
    assert update.output["payload"] == {"phase": "completed", "brand_id": brand}
    assert update.ended_at.timestamp() == 1760000088


def test_failures_have_pi_s_words_and_the_step_of_a_run() -> None:
    update = looked_at("job_failed", ProviderTask(JOB, {"kind": "job"}))
    assert (update.status, update.error["message"]) == (TaskStatus.FAILED, "trigger_failed")
    update = looked_at("run_failed", ProviderTask(RUN, {"kind": "run"}))
    assert (update.status, update.error["message"]) == (TaskStatus.FAILED, "the site could not be read")
    assert update.error["detail"]["step"] == "extract_brand"


def test_a_run_has_its_steps_as_output_and_their_share_as_progress() -> None:
    body = json.loads(json.dumps(RECORDED["run_failed"]["body"]))
    body["data"]["status"] = "in_progress"
    task = ProviderTask(RUN, {"kind": "run"})
    update: Any = PI.read_look(answer(200, body), task)
    assert (update.status, update.progress, update.output) == (TaskStatus.PROCESSING, 50, None)
    body["data"]["status"] = "completed"
    update = PI.read_look(answer(200, body), task)
    assert [step["id"] for step in update.output["steps"]] == ["extract_brand", "generate_hero"]


def test_an_id_that_is_none_of_pi_s_is_missing() -> None:
    task = ProviderTask(RUN, {"kind": "run"})
    assert isinstance(fetch_outcome(recorded("run_not_found"), PI, task, "default"), Missing)
    for code in ("invalid_run_id", "invalid_job_id"):
        assert PI.judge(answer(400, {"error": {"code": code}})) == Judgement.MISSING
    others: list[Any] = ["invalid_run_dag", []]
    for other in others:
        assert PI.judge(answer(400, {"error": {"code": other}})) == Judgement.BY_STATUS


def test_a_webhook_only_says_which_job_to_look_at() -> None:
    assert PI.parse_webhook(RECORDED["webhook"]) == LookNow(JOB)
    malformed: list[Any] = [
        {},
        {"type": []},
        {"type": "run.completed"},
        {"type": "job.failed", "data": {"job": {}}},
        [],
    ]
    for wrong in malformed:
        with pytest.raises(MalformedUpdate):
            PI.parse_webhook(wrong)


def test_a_signature_is_the_hmac_of_the_body_with_the_secret_of_the_registration() -> None:
    body = json.dumps(RECORDED["webhook"]).encode()
    right = f"sha256={hmac.digest(SECRET.encode(), body, 'sha256').hex()}"

    def verified(signature: str | None, given: bytes = body, secret: str | None = SECRET) -> Signature:
        headers = [] if signature is None else [(b"x-pi-signature", signature.encode())]
        credentials = {} if secret is None else {"webhook_secret": secret}
        return PI.verify(given, headers, credentials=credentials, keys=None, now=0.0)

    assert verified(right) == Signature.VALID
    for wrong in (None, "", right.removeprefix("sha256="), right.upper(), right[:-1], right + "0"):
        assert verified(wrong) == Signature.WRONG
    assert verified(right, body + b" ") == Signature.WRONG
    empty = f"sha256={hmac.digest(b'', body, 'sha256').hex()}"
    assert verified(empty, secret=None) == verified(empty, secret="") == Signature.WRONG
