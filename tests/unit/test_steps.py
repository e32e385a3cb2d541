"""The documents of a run's steps, as they are stored and read again."""

import orjson

from receiver.domain.actions import Action
from receiver.domain.graph import Graph, OnFailure, StepSpec
from receiver.domain.steps import definition_of, read_definition

ACTION = Action(name="brands", provider="piapi", model="m", task_type="t", account="own", result={"id": ("a", 0)})
GRAPH = Graph(
    (
        StepSpec(id="a", action="brands", input={"prompt": "ü"}),
        StepSpec(
            id="b",
            action="m:t",
            input_map={"url": "$steps.a.result.id"},
            depends_on=("a",),
            on_failure=OnFailure.CONTINUE,
            max_attempts=7,
            backoff_seconds=0.5,
        ),
    )
)
DEFINITION = definition_of(GRAPH, {"a": ACTION, "b": Action(name="m:t", provider="pi", model="m", task_type="t")})


def texts(padding: str = "") -> tuple[str, ...]:
    return tuple(orjson.dumps(each).decode() + padding for each in DEFINITION.documents)


def test_a_stored_definition_says_what_the_new_run_s_says() -> None:
    found = read_definition(texts())
    assert (found.graph, found.actions) == (GRAPH, DEFINITION.actions)
    assert [orjson.dumps(each) for each in found.documents] == [orjson.dumps(each) for each in DEFINITION.documents]


def test_a_small_definition_is_read_once_and_a_large_one_is_not_kept() -> None:
    assert read_definition(texts()) is read_definition(texts())
    large = " " * 16 * 1024
    assert read_definition(texts(large)) == read_definition(texts(large))
    assert read_definition(texts(large)) is not read_definition(texts(large))


def test_definitions_that_differ_in_one_step_are_told_apart() -> None:
    first, second = texts()
    assert read_definition((first, second.replace('"max_attempts":7', '"max_attempts":8'))).graph != GRAPH
    assert read_definition((first,)).graph == Graph(GRAPH.steps[:1])
