"""Tasks as Replicate's predictions: how a model is named, and outputs as the model gave them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replicate.webhook import Webhooks, WebhookSigningSecret

from models import DeliveryFormat
from receiver.api.replicate import MOST_WAIT_SECONDS
from receiver.domain.keyring import KeyRing, new_master_key
from receiver.domain.outputs import normalise_output, own_output
from receiver.domain.predictions import (
    TASK_TYPE,
    Addresses,
    NamedModel,
    prediction,
    read_model,
    starting,
    write_model,
)
from receiver.outbound.message import Message

URL, OTHER = "https://files.example.com/a.png", "https://files.example.com/b.mp4"
BEGAN = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
TASK: dict[str, Any] = {
    "uid": "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6072",
    "provider": "fal",
    "model": "fal-ai/flux/dev",
    "task_type": TASK_TYPE,
    "status": "completed",
    "input": {"prompt": "a cat"},
    "output": normalise_output({"images": [{"url": URL}], "seed": 7}),
    "error": None,
    "logs": ["one", {"message": "two"}, {"line": 3}],
    "meta": None,
    "created_at": BEGAN,
    "started_at": BEGAN + timedelta(seconds=1),
    "ended_at": BEGAN + timedelta(seconds=3),
}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stability-ai/sdxl", NamedModel("replicate", "stability-ai/sdxl", None)),
        ("stability-ai/sdxl:39ed", NamedModel("replicate", "stability-ai/sdxl:39ed", None)),
        ("39ed", NamedModel("replicate", "39ed", None)),
        ("fal:fal-ai/flux/dev", NamedModel("fal", "fal-ai/flux/dev", None)),
        ("piapi:Qubico/flux1-dev@txt2img", NamedModel("piapi", "Qubico/flux1-dev", "txt2img")),
        ("piapi:/kling@video_generation", NamedModel("piapi", "kling", "video_generation")),
        ("openai:/gpt-5", NamedModel("openai", "gpt-5", None)),
        ("a:b@c@d", NamedModel("a", "b@c", "d")),
        ("fal:", NamedModel("fal", "", None)),
        ("fal:@a", NamedModel("fal", "", "a")),
        ("replicate:deployments/a/b", NamedModel("replicate", "deployments/a/b", None)),
    ],
)
def test_a_text_names_a_provider_a_model_and_a_task_type(text: str, named: NamedModel) -> None:
    assert read_model(text) == named


@given(
    st.from_regex(r"\A[a-z_-]+\Z").filter(lambda name: name != "replicate"),
    st.from_regex(r"\A[\w.@-]+(/[\w.@-]+){0,3}\Z"),
    st.from_regex(r"\A\w+\Z") | st.just(TASK_TYPE),
)
def test_what_names_a_task_is_read_as_the_same(provider: str, model: str, task_type: str) -> None:
    named = read_model(write_model({"provider": provider, "model": model, "task_type": task_type}))
    assert (named.provider, named.model, named.task_type or TASK_TYPE) == (provider, model, task_type)


@pytest.mark.parametrize(
    "output",
    [
        [URL],
        [URL, OTHER],
        URL,
        "a text",
        ["a", "b"],
        {"image_url": URL},
        {"a": URL, "b": OTHER},
        {"images": [{"url": URL}], "seed": 7},
        {"score": 0.5},
        7,
    ],
)
def test_an_output_comes_back_as_the_model_gave_it(output: Any) -> None:
    stored = normalise_output(output)
    assert stored is not None
    assert own_output(stored) == output
    assert own_output(dict(sorted(stored.items(), reverse=True))) == output


def test_a_task_is_a_prediction_with_the_urls_of_its_files() -> None:
    shown = prediction(TASK, Addresses("https://ringback.example.com", True))
    assert (shown["model"], shown["version"], shown["status"]) == ("fal:fal-ai/flux/dev", "hidden", "succeeded")
    assert (shown["output"], shown["error"]) == ([URL], None)
    assert shown["logs"] == 'one\ntwo\n{"line":3}'
    assert shown["metrics"] == {"predict_time": 2.0, "total_time": 3.0}
    assert shown["urls"]["cancel"] == f"{shown['urls']['get']}/cancel"
    assert shown["urls"]["web"] == f"https://ringback.example.com/tasks/{TASK['uid']}"
    assert prediction(TASK, None)["urls"] == {}


def test_a_model_without_files_answers_what_it_said() -> None:
    assert prediction({**TASK, "output": normalise_output({"text": "hello"})}, None)["output"] == {"text": "hello"}


def test_the_provider_s_own_metrics_come_first() -> None:
    assert prediction({**TASK, "meta": {"metrics": {"predict_time": 1.5}}}, None)["metrics"]["predict_time"] == 1.5


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("a/b", ("a/b", "hidden")),
        ("a/b:c", ("a/b", "c")),
        ("0" * 64, ("0" * 64, "0" * 64)),
    ],
)
def test_a_model_of_replicate_s_is_named_as_there(model: str, shown: tuple[str, str]) -> None:
    found = prediction({**TASK, "provider": "replicate", "model": model}, None)
    assert (found["model"], found["version"]) == shown


@pytest.mark.parametrize("status", ["queued", "staged", "pending"])
def test_a_task_that_waits_is_starting(status: str) -> None:
    assert prediction({**TASK, "status": status}, None)["status"] == "starting"


def test_only_a_failure_has_an_error_and_only_a_success_an_output() -> None:
    failed = prediction({**TASK, "status": "failed", "error": {"message": "no"}}, None)
    assert (failed["error"], failed["output"]) == ("no", None)
    assert prediction({**TASK, "status": "cancelled", "error": {"message": "no"}}, None)["error"] is None
    begun = starting(prediction({**TASK, "status": "processing"}, None))
    assert (begun["status"], begun["output"]) == ("starting", None)


def test_a_secret_is_one_organization_s_and_outlives_a_change_of_the_master_key() -> None:
    old, new = new_master_key(), new_master_key()
    before = KeyRing([old]).callback_secrets("a")
    during = KeyRing([old, new]).callback_secrets("a")
    assert during == (KeyRing([new]).callback_secrets("a")[0], *before)
    assert not {*during} & {*KeyRing([old, new]).callback_secrets("b")}
    assert all(each.startswith("whsec_") and each.count("_") == 1 for each in during)


def test_replicate_s_client_accepts_a_webhook_by_either_secret_while_the_master_key_changes() -> None:
    old, new = new_master_key(), new_master_key()
    secrets = KeyRing([old, new]).callback_secrets("a")
    message = Message(
        id="evt_1",
        event_type="task.completed",
        format=DeliveryFormat.REPLICATE,
        body=b'{"id":"1"}',
        secrets=secrets,
        own_headers={},
    )
    headers = message.headers(BEGAN)
    for key in (KeyRing([old]).callback_secrets("a")[0], KeyRing([new]).callback_secrets("a")[0]):
        Webhooks.validate(headers=headers, body=message.body.decode(), secret=WebhookSigningSecret(key=key))


def test_a_waiting_create_is_answered_before_clients_and_proxies_give_up() -> None:
    assert MOST_WAIT_SECONDS <= 55  # both give up after 60 s; version 2 of the client then creates it again
