"""The number of values that a body may have, and that nothing in a body makes reading it slow."""

import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from receiver.api.endpoint import MOST_FAULTS, check
from receiver.api.schemas import MOST_FIELDS, CreateWebhook
from receiver.domain.json_bounds import MOST_VALUES, has_more_values
from receiver.domain.output_files import LONGEST_URL, is_url
from receiver.domain.redaction import REDACTED, redact_text
from receiver.errors import BadRequest
from receiver.providers.base import MalformedUpdate
from receiver.providers.lenient_json import read_json
from receiver.providers.piapi.bodies import redact

SECRET = "a-secret-of-the-tests"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


def values_in(value: Any) -> Iterator[Any]:
    yield value
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in below:
        yield from values_in(item)


@given(JSON)
def test_no_text_has_more_values_than_are_counted(value: Any) -> None:
    number = sum(1 for _ in values_in(value))
    assert not has_more_values(orjson.dumps(value), 2 * number), "a value has at most a comma and a bracket"
    if number > 2:
        assert has_more_values(orjson.dumps(value), (number - 1) // 2 - 1)


def test_commas_and_quotes_within_texts_do_not_count() -> None:
    prose = ['say "a, b, [c], {d}" and \\ , ' * 1000] * 10
    assert not has_more_values(orjson.dumps(prose), 100)
    assert has_more_values(orjson.dumps([1] * 200), 100)
    assert has_more_values(orjson.dumps([""] * 200), 100)


def test_a_provider_body_with_too_many_values_is_malformed_before_it_is_parsed() -> None:
    assert read_json(orjson.dumps([1] * (MOST_VALUES - 2)))
    with pytest.raises(MalformedUpdate, match="more than 100000 values"):
        read_json(orjson.dumps({"task_id": "x", "output": [1] * MOST_VALUES}))


def test_an_error_lists_the_first_faults_and_says_how_many_more() -> None:
    class Numbers(BaseModel):
        model_config = ConfigDict(extra="forbid")
        numbers: list[int]

    with pytest.raises(BadRequest) as caught:
        check(Numbers, {"numbers": ["x"] * 1000, "f" * 5000: 1})
    assert caught.value.param == "numbers.0"
    assert caught.value.message.count("; ") == MOST_FAULTS
    assert caught.value.message.endswith(f"and {1001 - MOST_FAULTS} more")
    with pytest.raises(BadRequest) as caught:
        check(Numbers, {"numbers": [], "f" * 5000: 1})
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "body", [{"event_types": [1] * 10_000}, {"headers": dict.fromkeys(map(str, range(10_000)), 1)}]
)
def test_members_are_counted_before_each_is_validated(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"may have at most {MOST_FIELDS} members") as caught:
        check(CreateWebhook, {"endpoint_url": "https://a.example", **body})
    assert len(caught.value.message) < 100
    with pytest.raises(BadRequest, match=f"may have at most {MOST_FIELDS} members"):
        check(CreateWebhook, dict.fromkeys(map(str, range(10_000)), 1))


def test_a_text_that_begins_like_a_url_is_looked_at_once() -> None:
    begun = time.process_time()
    assert not is_url("http://" + "a" * (LONGEST_URL - 10) + " b")
    assert not is_url("http://a/" + "a" * (LONGEST_URL - 20) + " b")
    assert time.process_time() - begun < 5, "tried in every division, it would take hours"


@pytest.mark.parametrize(
    "body",
    [
        b"\\" * 1_000_000 + SECRET.encode(),
        b"secret" * 150_000,
        (b"secret" + b" " * 3000) * 300,
        (b"secret=" + b"\\" * 31 + b'"') * 25_000,
        b"[" * 500_000,
        b'","' * 300_000,
    ],
)
def test_redaction_takes_a_time_that_grows_with_the_length(body: bytes) -> None:
    begun = time.process_time()
    redact(body, (SECRET,))
    assert time.process_time() - begun < 10, "with a square of the length it would take minutes"


@pytest.mark.parametrize("marks", [('"', '"'), ("'", "'"), ('\\"', '\\"'), ('\\\\\\"', '\\\\\\"'), ('\\\\"', '\\"')])
def test_a_short_secret_is_redacted_as_a_whole_text_in_quotes(marks: tuple[str, str]) -> None:
    before, after = marks
    shown = redact_text(f"x {before}hunter22{after} and hunter22 and {before}hunter22{after}", "hunter22")
    assert shown == f"x {before}{REDACTED}{after} and hunter22 and {before}{REDACTED}{after}"


@pytest.mark.parametrize("text", ['"hunter22', 'hunter22"', "\"hunter22'", '"hunter22\\"', '"xhunter22"'])
def test_a_short_secret_elsewhere_stays(text: str) -> None:
    assert redact_text(text, "hunter22") == text
