"""Actions: how they are found, how they build the input of a task, and how they read its result."""

import tomllib
from typing import Any

import pytest

from receiver.domain.actions import Action, Actions, UnknownAction, build_input, parse_actions, read_result
from receiver.domain.graph import StepSpec
from receiver.errors import SettingsError

FILE = """
[actions."brands.extract"]
provider = "piapi"
model = "gpt-4o"
task_type = "chat"
fixed_input = { stream = false }
default_input = { temperature = 0.2, style = { tone = "warm", size = 1 } }
result = { brand_id = "brand.id", first = "image_urls[0]", name = '"brand-name"', job = "job_id" }

[actions."campaigns.generate"]
model = "Qubico/flux1-schnell"
task_type = "txt2img"

[actions."campaigns.edit"]
model = "Qubico/flux1-dev"
task_type = "img2img"
"""


def parsed(text: str) -> Actions:
    return parse_actions(tomllib.loads(text), providers=["piapi", "other"], default_provider="piapi")


def faults(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parsed(text)
    return caught.value.message.split("\n")


def unknown_message(name: str, actions: Actions | None = None) -> str:
    with pytest.raises(UnknownAction) as caught:
        (actions or parsed(FILE)).find(name)
    return caught.value.message


def an_action(**fields: Any) -> Action:
    return Action(**{"name": "a", "provider": "piapi", "model": "m", "task_type": "t", **fields})


def test_a_file_defines_actions_by_name() -> None:
    actions = parsed(FILE)
    assert actions.find("brands.extract") == Action(
        name="brands.extract",
        provider="piapi",
        model="gpt-4o",
        task_type="chat",
        fixed_input={"stream": False},
        default_input={"temperature": 0.2, "style": {"tone": "warm", "size": 1}},
        result={"brand_id": ("brand", "id"), "first": ("image_urls", 0), "name": ("brand-name",), "job": ("job_id",)},
    )
    generate = actions.find("campaigns.generate")
    assert (generate.provider, generate.result, generate.fixed_input) == ("piapi", {}, {})


def test_an_empty_file_has_no_fault() -> None:
    assert parsed("") == Actions("piapi", {})


@pytest.mark.parametrize(
    ("name", "model", "task_type"),
    [
        ("kling:video_generation", "kling", "video_generation"),
        ("Qubico/flux1-schnell:txt2img", "Qubico/flux1-schnell", "txt2img"),
        ("owner/model:8b:chat", "owner/model:8b", "chat"),
        ("some model:chat", "some model", "chat"),
    ],
)
def test_any_model_and_task_type_is_an_action(name: str, model: str, task_type: str) -> None:
    assert parsed(FILE).find(name) == Action(name=name, provider="piapi", model=model, task_type=task_type)


@pytest.mark.parametrize(
    "name", ["kling:", ":chat", ":", "kling: ", "kling :chat", "kling\x00:chat", "m" * 201 + ":t", ""]
)
def test_an_incomplete_model_and_task_type_is_not_an_action(name: str) -> None:
    assert "<model>:<task_type>, such as kling:video_generation" in unknown_message(name)


def test_an_action_of_that_form_is_made_once_for_each_provider() -> None:
    first, again, other = (Actions(provider).find("kling:video") for provider in ("piapi", "piapi", "fal"))
    assert first is again
    assert (first.provider, other.provider) == ("piapi", "fal")


def test_the_error_for_an_unknown_action_suggests_the_most_similar() -> None:
    message = unknown_message("campaigns.generat")
    assert message.startswith("no action is named 'campaigns.generat'; use campaigns.generate")
    assert "brands.extract" not in message


def test_the_error_suggests_any_actions_if_none_is_similar() -> None:
    assert "use brands.extract, campaigns.edit, campaigns.generate, or <model>" in unknown_message("xyz")
    assert "; use <model>:<task_type>" in unknown_message("xyz", parsed(""))


def test_a_very_long_name_is_truncated_in_the_error() -> None:
    assert len(unknown_message("x" * 100_000)) < 500


def test_each_step_with_an_unknown_action_is_an_issue() -> None:
    steps = [
        StepSpec(id="a", action="brands.extrakt"),
        StepSpec(id="b", action="brands.extract"),
        StepSpec(id="c", action="kling"),
        StepSpec(id="d", action="kling:lip_sync"),
    ]
    issues = list(parsed(FILE).issues(steps))
    assert [(issue.code, issue.step_id, issue.param) for issue in issues] == [
        ("unknown_action", "a", "steps[0].action"),
        ("unknown_action", "c", "steps[2].action"),
    ]
    assert "brands.extract" in issues[0].message


def test_every_fault_of_a_file_is_named() -> None:
    text = """
    other = 1
    [actions.brands.extract]
    model = "m"
    task_type = "t"
    [actions."kling:video"]
    model = "m"
    task_type = "t"
    [actions." a"]
    model = "m"
    task_type = "t"
    [actions."b.c"]
    provider = "unknown"
    model = ""
    inputs = {}
    result = { ok = "url", bad = "a[*]", task_id = "id" }
    [actions."d.e"]
    model = 5
    task_type = "t"
    fixed_input = "none"
    """
    assert faults(text) == [
        "other: unknown table; put actions under [actions]",
        'actions.brands: put a name with dots in quotes, such as [actions."brands.extract"]',
        "actions.kling:video: a name cannot have a colon; the action <model>:<task_type> needs no table",
        "actions. a: a name must have 1 to 200 characters, without surrounding white space",
        "actions.\"b.c\".provider: no provider is named 'unknown'; use other or piapi",
        'actions."b.c".model: must have 1 to 200 characters, without surrounding white space',
        'actions."b.c".task_type: Field required',
        "actions.\"b.c\".result.bad: 'a[*]' cannot be parsed from '[*]' on: write names and indexes, such as "
        '.image_urls[0], and a name with other characters in quotes, such as ."image-url"',
        'actions."b.c".result.task_id.[key]: this name is reserved: Ringback sets it in every result',
        'actions."b.c".inputs: Extra inputs are not permitted',
        'actions."d.e".model: Input should be a valid string',
        'actions."d.e".fixed_input: Input should be a valid dictionary',
    ]


@pytest.mark.parametrize("text", ["actions = 1", "actions = []", "[[actions]]\nname = 'a'", "[actions]\na = 1"])
def test_a_file_with_another_structure_is_refused(text: str) -> None:
    assert faults(text)[0].startswith("actions")


def test_fixed_input_overrides_the_step_s_input_and_that_overrides_the_default() -> None:
    action = an_action(
        default_input={"a": "default", "b": "default", "c": "default", "deep": {"x": 1, "y": 2}},
        fixed_input={"c": "fixed", "d": "fixed"},
    )
    given = {"b": "given", "c": "given", "deep": {"x": 3}, "e": "given"}
    assert build_input(action, given) == {
        **{"a": "default", "b": "given", "c": "fixed", "d": "fixed", "e": "given"},
        "deep": {"x": 3},
    }
    assert given["c"] == "given"


def test_by_default_the_result_is_the_output_and_three_more_names() -> None:
    output = {"image_url": "https://x/1.png", "task_id": "the provider's", "seed": 0}
    assert read_result(an_action(), output, task_id="t-1") == {
        "image_url": "https://x/1.png",
        "seed": 0,
        "task_id": "t-1",
        "job_id": "t-1",
        "result_url": "https://x/1.png",
    }
    assert output["task_id"] == "the provider's"


def test_a_task_without_output_still_has_a_result() -> None:
    assert read_result(an_action(), None, task_id="t-1") == {"task_id": "t-1", "job_id": "t-1", "result_url": None}
    assert read_result(an_action(), {"result_url": "u"}, task_id="t-1")["result_url"] == "u"


def test_an_action_reads_its_result_from_the_output() -> None:
    output: dict[str, Any] = {
        "brand": {"id": 7},
        "brand-name": None,
        "image_urls": [],
        "video_url": "https://x/v.mp4",
        "noise": 1,
    }
    assert read_result(parsed(FILE).find("brands.extract"), output, task_id="t-1") == {
        "brand_id": 7,
        "job": "t-1",
        "task_id": "t-1",
        "job_id": "t-1",
        "result_url": "https://x/v.mp4",
    }


def test_an_action_may_define_its_result_url() -> None:
    action = an_action(result={"result_url": ("cover", "url")})
    output = {"video_url": "https://x/v.mp4", "cover": {"url": "https://x/c.png"}}
    assert read_result(action, output, task_id="t-1")["result_url"] == "https://x/c.png"
    assert read_result(action, {"video_url": "https://x/v.mp4"}, task_id="t-1")["result_url"] == "https://x/v.mp4"
