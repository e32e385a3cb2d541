"""The document that the row of a step stores: the step as requested, and its action as it was at that time.

The action is stored too, so that a change of the actions file does not change the runs that exist.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import asdict

from receiver.domain.actions import Action
from receiver.domain.graph import Graph, OnFailure, StepSpec

_MOST_REMEMBERED = 256
_LONGEST_REMEMBERED = 16 * 1024
"""Characters of the documents of one run."""


def document_of(step: StepSpec, action: Action) -> dict[str, Any]:
    """Return the document to store for a step; `action` is `Actions.of` it.

    An earlier version can read it: it knows the provider in the action alone, and no account where none is named.
    """
    stored, done = asdict(step), asdict(action)  # their inputs are not copied
    del stored["provider"]
    if done["account"] is None:
        del done["account"]
    return {"step": stored, "action": done}


def step_of(document: Mapping[str, Any]) -> StepSpec:
    """Return the step of a stored document."""
    stored = document["step"]
    return StepSpec(
        **{**stored, "depends_on": tuple(stored["depends_on"]), "on_failure": OnFailure(stored["on_failure"])}
    )


def action_of(document: Mapping[str, Any]) -> Action:
    """Return the action of a stored document."""
    stored = document["action"]
    return Action(**{**stored, "result": {name: tuple(path) for name, path in stored["result"].items()}})


class Definition(Struct, frozen=True):
    """What the documents of a run's steps say, in the order of the steps. It never changes, and nothing in it may be
    changed: several runs may have the same one."""

    documents: tuple[Mapping[str, Any], ...]
    graph: Graph
    actions: Mapping[str, Action]
    """By the ids of the steps."""


def definition_of(graph: Graph, actions: Mapping[str, Action]) -> Definition:
    """Return the definition of a new run."""
    return Definition(tuple(document_of(step, actions[step.id]) for step in graph.steps), graph, actions)


def read_definition(documents: tuple[str, ...]) -> Definition:
    """Return the definition of a run whose steps have these documents, as they are stored.

    That of a run is read at each of its steps, so small ones are remembered: by their text, which says all of it.
    """
    if sum(map(len, documents)) > _LONGEST_REMEMBERED:
        return _read_definition(documents)
    return _read_small(documents)


def _read_definition(documents: tuple[str, ...]) -> Definition:
    read = tuple(map(orjson.loads, documents))
    graph = Graph(tuple(map(step_of, read)))
    actions = {step.id: action_of(each) for step, each in zip(graph.steps, read, strict=True)}
    return Definition(read, graph, actions)


_read_small = lru_cache(maxsize=_MOST_REMEMBERED)(_read_definition)
