"""The document that the row of a step stores: the step as requested, and its action as it was at that time.

The action is stored too, so that a change of the actions file does not change the runs that exist.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from receiver.domain.actions import Action
from receiver.domain.graph import OnFailure, StepSpec

# Not `asdict`, which copies what the input has, whatever its size.
_STEP_FIELDS = tuple(each.name for each in fields(StepSpec) if each.name != "provider")
_ACTION_FIELDS = tuple(each.name for each in fields(Action))


def document_of(step: StepSpec, action: Action) -> dict[str, Any]:
    """Return the document to store for a step; `action` is `Actions.of` it.

    An earlier version can read it: it knows the provider in the action alone, and no account where none is named.
    """
    stored = {name: getattr(step, name) for name in _STEP_FIELDS}
    done = {name: getattr(action, name) for name in _ACTION_FIELDS}
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
