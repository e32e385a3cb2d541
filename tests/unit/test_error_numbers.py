"""A task's error in PiAPI's form: its code is a number wherever we know one."""

import ast
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.domain.error_numbers import OWN_NUMBERS, piapi_error
from receiver.domain.representations import piapi_body, piapi_task

ROOT = Path(__file__).parents[2]
ROW: dict[str, Any] = {
    "uid": "0197",
    "model": "flux",
    "task_type": "txt2img",
    "status": "failed",
    "config": None,
    "callback_url": None,
    "input": {},
    "output": None,
    "meta": None,
    "created_at": "2026-01-01T00:00:00+00:00",
    "started_at": None,
    "ended_at": None,
    "provider_task_id": None,
    "attempt": 1,
    "detail": None,
    "logs": None,
    "error": {"code": "timed_out", "message": "no update", "raw_message": "", "detail": None},
}


def test_no_error_has_the_code_0() -> None:
    nothing: tuple[dict[str, Any] | None, ...] = (None, {})
    for error in nothing:
        assert piapi_error(error) == {"code": 0, "raw_message": "", "message": "", "detail": None}


@pytest.mark.parametrize("word", OWN_NUMBERS)
def test_our_own_failures_have_numbers_and_keep_their_words(word: str) -> None:
    shown = piapi_error({"code": word, "message": "what happened", "raw_message": "", "detail": None})
    assert shown == {"code": OWN_NUMBERS[word], "raw_message": word, "message": "what happened", "detail": None}


def test_a_text_that_only_repeats_the_message_gives_way_to_the_word() -> None:
    shown = piapi_error({"code": "timed_out", "message": "m", "raw_message": "m", "detail": None})
    assert (shown["raw_message"], shown["message"]) == ("timed_out", "m")
    assert piapi_error({"code": "timed_out", "message": "m", "raw_message": "other"})["raw_message"] == "other"


def test_a_number_stands_for_one_word() -> None:
    assert len(set(OWN_NUMBERS.values())) == len(OWN_NUMBERS)
    assert all(90_000 <= number < 90_100 for number in OWN_NUMBERS.values())


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (1100, 1100),
        ("1102", 1102),
        (" 500 ", 500),
        ("-1", -1),
        (1100.0, 1100),
        (None, 0),
        ("", ""),
        ("content_policy", "content_policy"),
        ("12345678901", "12345678901"),
        ("१२", "१२"),
        (5.5, 5.5),
        (1e9, 1e9),
        (-5.4037747867236544e138, -5.4037747867236544e138),
    ],
)
def test_the_provider_s_own_codes_are_numbers_where_they_can_be(code: Any, shown: Any) -> None:
    error = {"code": code, "message": "m", "raw_message": "raw", "detail": {"a": 1}}
    assert piapi_error(error) == {"code": shown, "message": "m", "raw_message": "raw", "detail": {"a": 1}}
    assert type(piapi_error(error)["code"]) is type(shown)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1) | st.text())
@example(5.4037747867236544e138)
def test_whatever_code_a_provider_gave_its_task_can_be_shown_and_delivered(code: Any) -> None:
    row = {**ROW, "error": {"code": code, "message": "m", "raw_message": "", "detail": None}}
    event = {"type": "task.failed", "created_at": "2026-01-01T00:00:00+00:00", "snapshot": {**row, "progress": 0}}
    for shown in (piapi_task(row), piapi_body(row, event)):
        assert orjson.loads(orjson.dumps(shown)) == shown


def test_a_task_and_a_callback_have_the_number() -> None:
    assert piapi_task(ROW)["error"]["code"] == OWN_NUMBERS["timed_out"]
    event = {"type": "task.failed", "created_at": "2026-01-01T00:00:00+00:00", "snapshot": {**ROW, "progress": 0}}
    assert piapi_body(ROW, event)["data"]["error"]["code"] == OWN_NUMBERS["timed_out"]


def test_every_word_with_which_the_service_fails_a_task_has_a_number() -> None:
    words = set()
    for path in sorted((ROOT / "receiver" / "tracking").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="fail" | "_fail"), args=[_, ast.Constant(value=str(word)), *_]):
                    words.add(word)
                case ast.Dict(keys=keys, values=values):
                    words |= {
                        value.value
                        for key, value in zip(keys, values, strict=True)
                        if isinstance(key, ast.Constant)
                        and key.value == "code"
                        and isinstance(value, ast.Constant)
                        and isinstance(value.value, str)
                    }
    assert words
    assert words <= set(OWN_NUMBERS)


def test_the_contracts_name_every_number() -> None:
    paper = (ROOT / "receiver" / "api" / "CONTRACTS.md").read_text(encoding="utf-8")
    named = {word: int(number) for number, word in re.findall(r"^\| (90\d{3}) \| `(\w+)` \|", paper, re.MULTILINE)}
    assert named == dict(OWN_NUMBERS)
