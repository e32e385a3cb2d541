"""What a task that completed without its result, or reports unknown words, keeps of later updates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import EventType, ReceiptReason, TaskStatus
from receiver.domain.decisions import NOTHING
from receiver.domain.revisions import revision_of
from receiver.domain.updates import ProviderUpdate, Source
from tests.unit.test_transitions import C, F, P, R, X, concluded, decided, reported, task_state
from tests.unit.test_transitions_properties import START, Row, reordered, row_after

PICTURE = {"image_url": "https://x/a.png"}
PREVIEW = {"image_url": "https://x/preview.png"}
OTHER = {"image_url": "https://x/b.png"}
ERROR = {"code": 1, "message": "nsfw", "raw_message": "", "detail": None}


def completed(output: Any = None, **fields: Any) -> ProviderUpdate:
    return reported(C, output=output, **fields)


@pytest.mark.parametrize("empty", [None, {}, {"percent": 100, "seed": 7}], ids=["none", "empty", "bookkeeping"])
def test_a_result_that_comes_after_the_end_completes_the_task(empty: Any) -> None:
    row = row_after([reported(R), completed(empty), completed(PICTURE, meta={"usage": 7})])
    assert (row.state.status, row.content["output"], row.content["meta"]) == (C, PICTURE, {"usage": 7})
    assert [each.event for each in row.events][1:] == [EventType.TASK_COMPLETED] * 2
    assert row.events[-1].snapshot["corrects"] == "event-1"
    assert row.state.ended_event == "event-2"


def test_the_event_of_an_end_without_a_result_has_its_own_content_and_that_of_the_result_has_none() -> None:
    row = row_after([reported(R), completed(None), completed(PICTURE)])
    first, second = row.events[1:]
    assert first.snapshot["output"] is None
    assert "output" not in second.snapshot


def test_a_result_that_came_before_an_empty_end_is_kept() -> None:
    row = row_after([reported(R, output=PICTURE, progress=90), completed({}, meta={"usage": 7})])
    assert (row.content["output"], row.content["meta"], row.state.status) == (PICTURE, {"usage": 7}, C)


def test_the_result_of_the_end_replaces_one_that_was_reported_while_it_ran() -> None:
    row = row_after([completed({}), reported(R, output=PREVIEW), completed(PICTURE), reported(R, output=PREVIEW)])
    assert row.content["output"] == PICTURE


def test_a_second_end_with_the_same_result_changes_nothing() -> None:
    row = row_after([completed(PICTURE)])
    assert decided(row.state, completed(PICTURE, logs=["more"])) is NOTHING
    assert decided(row.state, completed({})) is NOTHING


@pytest.mark.parametrize(
    ("end", "then"),
    [
        (completed(PICTURE), completed(OTHER)),
        (reported(F, error=ERROR), reported(F, error={**ERROR, "message": "out of memory"})),
        (concluded(), reported(F, error=ERROR)),
        (completed(PICTURE), reported(None, word="published", output=OTHER)),
        (reported(X), reported(X, output=PICTURE)),
    ],
    ids=["another-result", "another-reason", "a-reason-after-our-own", "an-unknown-word", "a-result-after-a-cancel"],
)
def test_what_differs_from_the_end_is_a_receipt(end: ProviderUpdate, then: ProviderUpdate) -> None:
    row = row_after([reported(R), end])
    decision = decided(row.state, then)
    assert decision.receipt == ReceiptReason.CONFLICTING
    assert not decision.changes
    assert decision.message


def test_a_task_that_an_older_version_completed_changes_no_more() -> None:
    assert decided(task_state(C, revision="3.040"), completed(PICTURE)) is NOTHING


def test_an_unknown_word_keeps_output_error_and_word_on_the_row() -> None:
    row = row_after([reported(P), reported(None, word="moderated", output=PICTURE, error=ERROR)])
    assert (row.state.status, row.state.words) == (P, ["moderated"])
    assert (row.content["output"], row.content["error"]) == (PICTURE, ERROR)
    assert row.events[-1].snapshot["words"] == ["moderated"]


def test_an_unknown_word_without_content_replaces_nothing() -> None:
    row = row_after([reported(R, logs=["a"], progress=40), reported(None, word="thinking")])
    assert (row.content["logs"], row.content["progress"]) == (["a"], 40)


def test_our_own_end_keeps_the_unknown_words_and_the_providers_clears_them() -> None:
    row = row_after([reported(P), reported(None, word="moderated"), concluded()])
    assert row.state.words == ["moderated"]
    assert row.events[-1].snapshot["words"] == ["moderated"]
    row.apply(completed(PICTURE))
    assert row.state.words is None


def test_a_state_moves_forward_though_an_unknown_word_had_more_content() -> None:
    row = row_after([reported(P), reported(None, word="upscaling", progress=50), reported(R, progress=10)])
    assert (row.state.status, row.content["progress"]) == (R, 50)
    assert row.decisions[-1].keeps_content
    assert "output" not in row.decisions[-1].snapshot


@st.composite
def late_histories(draw: st.DrawFn) -> list[ProviderUpdate]:
    """Generate a history whose end has its result before, in, after or besides the end, with unknown words."""
    outputs = st.sampled_from([None, {}, PREVIEW, {"percent": 10}])
    history: list[ProviderUpdate] = []
    for progress in sorted(draw(st.lists(st.integers(0, 99), max_size=3))):
        status: TaskStatus | None = draw(st.sampled_from([P, R, None]))
        word = draw(st.sampled_from(["moderating", "upscaling"])) if status is None else ""
        error = draw(st.sampled_from([None, ERROR])) if status is None else None
        history.append(
            reported(
                status, draw(st.sampled_from(Source)), word=word, progress=progress, output=draw(outputs), error=error
            )
        )
    ends = [completed(draw(st.sampled_from([None, {}, {"percent": 100}])), ended_at=START)]
    if draw(st.booleans()):
        ends.append(completed(PICTURE, ended_at=START))
    return history + ends


@st.composite
def late_arrivals(draw: st.DrawFn) -> tuple[list[ProviderUpdate], list[ProviderUpdate]]:
    history = draw(late_histories())
    return history, draw(reordered(history))


def result(row: Row) -> Any:
    """Return what a client gets of an output: a URL or nothing."""
    return (row.content["output"] or {}).get("image_url")


@given(late_arrivals())
def test_in_every_order_the_best_result_is_kept(arrival: tuple[list[ProviderUpdate], list[ProviderUpdate]]) -> None:
    history, received = arrival
    row = row_after(received)
    running = sorted((update for update in history if update.status != C), key=revision_of)
    if any(update.output == PICTURE for update in history):
        assert result(row) == PICTURE["image_url"]
    elif running and running[-1].output == PREVIEW:
        assert result(row) == PREVIEW["image_url"]
    elif not any(update.output == PREVIEW for update in running):
        assert result(row) is None
    assert (row.state.status, row.content["error"], row.content["due_at"]) == (C, None, None)
    assert row.state.words is None


@given(late_arrivals())
def test_each_result_is_told_once_and_corrects_the_end_before_it(
    arrival: tuple[list[ProviderUpdate], list[ProviderUpdate]],
) -> None:
    row = row_after(arrival[1])
    ends = [(number, each) for number, each in enumerate(row.decisions) if each.event == EventType.TASK_COMPLETED]
    assert [each.snapshot.get("corrects") for _, each in ends] == [
        None,
        *(f"event-{number}" for number, _ in ends[:-1]),
    ]
    revisions = [each.changes["revision"] for _, each in ends]
    assert revisions == sorted(set(revisions))


@given(late_arrivals())
def test_a_running_task_with_unknown_words_is_the_same_in_every_order(
    arrival: tuple[list[ProviderUpdate], list[ProviderUpdate]],
) -> None:
    history, received = ([update for update in updates if update.status != C] for updates in arrival)
    in_order, shuffled = row_after(history), row_after(received)
    assert shuffled.state.status == in_order.state.status
    assert (shuffled.state.words, shuffled.state.revision) == (in_order.state.words, in_order.state.revision)
    assert [shuffled.content[name] for name in ("output", "error", "progress")] == [
        in_order.content[name] for name in ("output", "error", "progress")
    ]
