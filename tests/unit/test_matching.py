"""What a subscription matches: event types and filters, and which are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import RUN_EVENTS, TASK_EVENTS, EventType
from receiver.domain.matching import (
    MOST_VALUES,
    SUBSCRIBABLE,
    TASK_END_EVENTS,
    check_event_types,
    check_filters,
    matches,
)
from receiver.errors import BadRequest

RUN, OTHER_RUN = "018f0000-0000-7000-8000-00000000000a", "018f0000-0000-7000-8000-00000000000b"
METADATA = {"customer": "acme", "tier": 7, "paid": True, "share": 0.5, "nothing": None, "tags": ["a"]}
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.text(max_size=20) | st.booleans() | NUMBERS


def is_match(filters: Any, **task: Any) -> bool:
    event = {"model": "flux", "task_type": "txt2img", "metadata": METADATA, **task}
    return matches(check_filters(filters), **event)


@pytest.mark.parametrize(
    "filters",
    [
        None,
        {},
        {"model": "flux"},
        {"model": ["kling", "flux"]},
        {"task_type": "txt2img"},
        {"model": "flux", "task_type": ["img2img", "txt2img"]},
        {"metadata": {"customer": "acme"}},
        {"metadata": {"customer": ["other", "acme"], "tier": 7}},
        {"metadata": {"tier": "7"}},
        {"metadata": {"paid": "true"}},
        {"metadata": {"paid": True}},
        {"metadata": {"share": 0.5}},
    ],
)
def test_a_task_that_every_filter_accepts_matches(filters: Any) -> None:
    assert is_match(filters)


@pytest.mark.parametrize(
    "filters",
    [
        {"model": "Flux"},
        {"model": ["kling"]},
        {"model": "flux", "task_type": "img2img"},
        {"metadata": {"customer": "Acme"}},
        {"metadata": {"customer": "acme", "tier": 8}},
        {"metadata": {"tier": 1}},
        {"metadata": {"paid": 1}},
        {"metadata": {"absent": "acme"}},
        {"metadata": {"tags": "a"}},
    ],
)
def test_a_task_that_one_filter_does_not_accept_does_not_match(filters: Any) -> None:
    assert not is_match(filters)


def test_a_task_without_metadata_matches_no_metadata_filter() -> None:
    assert not is_match({"metadata": {"customer": "acme"}}, metadata=None)


def test_an_event_without_a_task_matches_every_filter() -> None:
    assert is_match({"model": "kling"}, model=None, task_type=None, metadata=None)


@given(st.dictionaries(st.text(min_size=1, max_size=10), SCALARS, min_size=1, max_size=5))
def test_a_task_matches_a_filter_on_its_own_metadata(metadata: dict[str, Any]) -> None:
    assert is_match({"metadata": metadata}, metadata=metadata)
    assert is_match({"metadata": {name: [value] for name, value in metadata.items()}}, metadata=metadata | {"more": 1})


def test_checked_filters_are_lists() -> None:
    filters = {"model": "flux", "task_type": ["a", "b"], "metadata": {"customer": 7, "tier": ["x"]}}
    wanted = {"model": ["flux"], "task_type": ["a", "b"], "metadata": {"customer": [7], "tier": ["x"]}}
    assert check_filters(filters) == wanted
    assert check_filters(wanted) == wanted
    assert check_filters({}) is None


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"run_id": "018f"}, "run_id"),
        ({"run_id": [RUN, 7]}, "run_id"),
        ({"model": []}, "model"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ["flux", 7]}, "model"),
        ({"model": {"is": "flux"}}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"task_type": ["t"] * (MOST_VALUES + 1)}, "task_type"),
        ({"metadata": {}}, "metadata"),
        ({"metadata": "customer"}, "metadata"),
        ({"metadata": ["customer"]}, "metadata"),
        ({"metadata": {f"k{number}": 1 for number in range(MOST_VALUES + 1)}}, "metadata"),
        ({"metadata": {"customer": []}}, "metadata.customer"),
        ({"metadata": {"customer": None}}, "metadata.customer"),
        ({"metadata": {"customer": {"a": 1}}}, "metadata.customer"),
        ({"metadata": {"customer": [["a"]]}}, "metadata.customer"),
        ({"metadata": {"customer": "c" * 501}}, "metadata.customer"),
        ({"metadata": {"": "a"}}, "metadata."),
        ({"metadata": {"customer": list(range(MOST_VALUES + 1))}}, "metadata.customer"),
    ],
)
def test_an_invalid_filter_is_refused_by_its_name(filters: Any, field: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_filters(filters)
    assert refusal.value.param == f"filters.{field}"


def test_the_error_for_an_unknown_filter_lists_the_allowed_ones() -> None:
    with pytest.raises(BadRequest, match="allowed are model, task_type, run_id and metadata"):
        check_filters({"colour": "red"})


def test_an_event_of_a_run_is_filtered_by_run_id_and_metadata_only() -> None:
    run_event: dict[str, Any] = {"model": None, "task_type": None, "run_uid": RUN}
    for passed in ({"run_id": RUN}, {"run_id": [RUN.upper()], "model": "kling"}, {"metadata": {"tier": 7}}):
        assert is_match(passed, **run_event)
    for failed in ({"run_id": OTHER_RUN}, {"metadata": {"tier": 8}}, {"run_id": RUN, "metadata": {"absent": 1}}):
        assert not is_match(failed, **run_event)


def test_a_run_id_filter_matches_only_the_tasks_of_that_run() -> None:
    assert is_match({"run_id": [OTHER_RUN, RUN]}, run_uid=RUN)
    assert not is_match({"run_id": RUN}, run_uid=OTHER_RUN)
    assert not is_match({"run_id": RUN}, run_uid=None)
    assert not is_match({"run_id": RUN, "model": "kling"}, run_uid=RUN)


def test_event_types_may_be_ringback_s_names_pi_s_names_or_wildcards() -> None:
    assert set(check_event_types(["task.*", "webhook.disabled"], as_pi=False)) == {*TASK_EVENTS, "webhook.disabled"}
    assert set(check_event_types(["run.*"], as_pi=False)) == set(RUN_EVENTS)
    assert check_event_types(["job.failed", "task.failed"], as_pi=False) == ["task.failed"]
    assert check_event_types(None, as_pi=False) == list(TASK_END_EVENTS)
    assert check_event_types(None, as_pi=True) == ["task.completed", "task.failed"]
    assert set(check_event_types(SUBSCRIBABLE, as_pi=False)) == set(EventType) - {EventType.PING}


@pytest.mark.parametrize("wanted", [[], ["task.exploded"], ["ping"], ["task.completed", "ping"], ["*"], [""]])
def test_an_event_type_that_cannot_be_subscribed_to_is_refused(wanted: list[str]) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_event_types(wanted, as_pi=False)
    assert refusal.value.param == "event_types"
