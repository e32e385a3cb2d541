"""What the sandbox's knobs mean, tested without a server."""

from typing import Any

import pytest

from receiver.sandbox.script import (
    KnobRefused,
    SandboxOptions,
    Script,
    outcome_of,
    patch_options,
    poll_behaviour,
    read_script,
    submit_behaviour,
    timeline,
)


def test_the_options_are_the_defaults_of_a_script() -> None:
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
def test_an_invalid_knob_is_refused_and_named(given: Any, name: str) -> None:
    with pytest.raises(KnobRefused, match=f"^{name}: "):
        read_script(given, SandboxOptions())


def test_options_are_patched_and_validated() -> None:
    assert patch_options(SandboxOptions(lose_share=0.3), {"submit_status": 503}) == SandboxOptions(
        lose_share=0.3, submit_status=503
    )
    for patch, name in [({"lose_share": 2}, "lose_share"), ({"nothing": 1}, "nothing"), ("x", "options")]:
        with pytest.raises(KnobRefused, match=f"^{name}: "):
            patch_options(SandboxOptions(), patch)


def test_a_busy_provider_recovers_after_the_configured_failures() -> None:
    assert [submit_behaviour(Script(submit="unavailable"), n) for n in range(2)] == ["unavailable", "ok"]
    three_times = Script(submit="rate_limited", submit_failures=3)
    assert [submit_behaviour(three_times, n) for n in (2, 3)] == ["rate_limited", "ok"]


def test_other_create_faults_stay_unless_their_number_is_set() -> None:
    assert submit_behaviour(Script(submit="error"), 1000) == "error"
    assert submit_behaviour(Script(submit="error", submit_failures=1), 1) == "ok"


def test_a_poll_succeeds_after_the_configured_failures() -> None:
    script = Script(poll="not_found", poll_failures=2)
    assert [poll_behaviour(script, n) for n in range(3)] == ["not_found", "not_found", "ok"]


def test_the_first_tasks_fail_and_the_next_has_the_outcome() -> None:
    script = Script(fail_attempts=2)
    assert [outcome_of(script, n) for n in range(3)] == ["failed", "failed", "completed"]


def test_progress_rises_and_an_unknown_word_is_sent_half_way() -> None:
    script = Script(duration=4, progress=3, logs=1, extra_status="warming")
    assert [(entry.at, entry.percent, entry.log, entry.word) for entry in timeline(script)] == [
        (1, 25, "step 1 of 1", None),
        (2, 50, None, None),
        (2, None, None, "warming"),
        (3, 75, None, None),
    ]


def test_a_default_script_has_an_empty_timeline() -> None:
    assert timeline(Script()) == []
