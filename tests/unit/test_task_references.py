"""References to tasks in an input."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.ids import new_id
from receiver.domain.task_references import ids_in, with_ids

ONE, TWO = "01998c2e-7d1b-7f00-8000-000000000001", "01998c2e-7d1b-7f00-8000-000000000002"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([ONE, TWO]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_ids_are_found_and_replaced_at_any_depth() -> None:
    given = {"origin_task_id": ONE, "images": [{"task": TWO.upper()}, [ONE, 7, None]], "prompt": "a cat"}
    assert ids_in(given) == {ONE, TWO}
    assert with_ids(given, {ONE: "pt-1", TWO: "pt-2"}) == {
        "origin_task_id": "pt-1",
        "images": [{"task": "pt-2"}, ["pt-1", 7, None]],
        "prompt": "a cat",
    }


@pytest.mark.parametrize(
    "given",
    [f"see {ONE}", ONE.replace("-", ""), f"{ONE}\n", {ONE: "a name, not a value"}],
    ids=["inside a text", "without hyphens", "with a line break", "as a name"],
)
def test_only_a_whole_string_in_the_form_of_an_id_is_a_reference(given: Any) -> None:
    assert ids_in(given) == set()
    assert with_ids(given, {ONE: "pt-1"}) == given


@given(JSON)
def test_a_value_without_known_ids_is_unchanged(value: Any) -> None:
    assert with_ids(value, {}) == value
    assert with_ids(value, {new_id(): "pt-9"}) == value


@given(JSON)
def test_exactly_the_ids_that_are_found_are_replaced(value: Any) -> None:
    known = {each: f"pt-{each}" for each in ids_in(value)}
    replaced = with_ids(value, known)
    assert ids_in(replaced) == set()
    assert with_ids(replaced, {to: each for each, to in known.items()}) == value
