"""What the sandbox's knobs mean, without a server."""

from typing import Any

import pytest

from receiver.sandbox.script import (
    KnobRefused,
    SandboxOptions,
    Script,
    moments,
    outcome_of,
    patch_options,
    poll_conduct,
    read_script,
    shape_for,
    submit_conduct,
)


def test_what_a_script_leaves_out_the_options_decide() -> None:
    options = SandboxOptions(duration=7, webhook="lost")
    script = read_script({"webhook": "twice", "error": {"code": 5}}, options)
    assert (script.duration, script.webhook) == (7, "twice")
    assert (script.error.code, script.error.message) == (5, "task failed")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"colour": "red"}, "input.sandbox.colour"),
        ({"api_key": "x"}, "input.sandbox.api_key"),
        ({"duration": "soon"}, "input.sandbox.duration"),
        ({"duration": -1}, "input.sandbox.duration"),
        ({"outcome": "perhaps"}, "input.sandbox.outcome"),
        ({"cancellable": 1}, "input.sandbox.cancellable"),
        ({"fail_attempts": True}, "input.sandbox.fail_attempts"),
        ({"error": {"kode": 1}}, "input.sandbox.error.kode"),
        ({"error": {"code": 0}}, "input.sandbox.error.code"),
        ([], "input.sandbox"),
        (None, "input.sandbox"),
    ],
)
def test_a_knob_that_is_wrong_is_named(given: Any, name: str) -> None:
    with pytest.raises(KnobRefused, match=f"^{name}: "):
        read_script(given, SandboxOptions())


def test_options_are_patched_and_checked() -> None:
    assert patch_options(SandboxOptions(lose_share=0.3), {"submit_status": 503}) == SandboxOptions(
        lose_share=0.3, submit_status=503
    )
    for patch, name in [({"lose_share": 2}, "lose_share"), ({"nothing": 1}, "nothing"), ("x", "options")]:
        with pytest.raises(KnobRefused, match=f"^{name}: "):
            patch_options(SandboxOptions(), patch)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("Qubico/flux1-dev", "flux"),
        ("Qubico/image-toolkit", "flux"),
        ("kling", "kling"),
        ("veo3", "kling"),
        ("sora2", "kling"),
        ("seedance", "kling"),
        ("hailuo", "hailuo"),
        ("luma", "luma"),
        ("Wan", "wan"),
        ("Qubico/skyreels", "wan"),
        ("Qubico/hunyuan", "wan"),
        ("ace-step", "audio"),
        ("Qubico/diffrhythm", "audio"),
        ("Qubico/tts", "audio"),
        ("Qubico/mmaudio", "audio"),
        ("midjourney", "midjourney"),
    ],
)
def test_the_output_has_its_models_form(model: str, shape: str) -> None:
    assert shape_for(Script(), model) == shape
    assert shape_for(Script(shape="old_envelope"), model) == "old_envelope"


def test_a_busy_provider_is_well_again_after_so_many_tries() -> None:
    assert [submit_conduct(Script(submit="unavailable"), n) for n in range(2)] == ["unavailable", "ok"]
    thrice = Script(submit="rate_limited", submit_failures=3)
    assert [submit_conduct(thrice, n) for n in (2, 3)] == ["rate_limited", "ok"]


def test_other_faults_of_a_create_stay_unless_they_are_counted() -> None:
    assert submit_conduct(Script(submit="error"), 1000) == "error"
    assert submit_conduct(Script(submit="error", submit_failures=1), 1) == "ok"


def test_a_poll_is_well_again_after_so_many() -> None:
    script = Script(poll="not_found", poll_failures=2)
    assert [poll_conduct(script, n) for n in range(3)] == ["not_found", "not_found", "ok"]


def test_the_first_creates_fail_and_the_next_ends_as_it_should() -> None:
    script = Script(fail_attempts=2)
    assert [outcome_of(script, n) for n in range(3)] == ["failed", "failed", "completed"]


def test_progress_rises_and_an_unknown_word_comes_half_way() -> None:
    script = Script(duration=4, progress=3, logs=1, extra_status="warming")
    assert [(m.at, m.percent, m.log, m.word) for m in moments(script)] == [
        (1, 25, "step 1 of 1", None),
        (2, 50, None, None),
        (2, None, None, "warming"),
        (3, 75, None, None),
    ]


def test_a_plain_script_has_no_moments() -> None:
    assert moments(Script()) == []
