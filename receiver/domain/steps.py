"""A step as its row keeps it: what was asked for, and the action as it was then. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from receiver.domain.actions import Action
from receiver.domain.graph import OnFailure, StepSpec


def document_of(step: StepSpec, action: Action) -> dict[str, Any]:
    """Return what is kept of a step."""
    return {"step": asdict(step), "action": asdict(action)}


def step_of(document: Mapping[str, Any]) -> StepSpec:
    """Return the step that `document_of` kept."""
    kept = document["step"]
    return StepSpec(**{**kept, "depends_on": tuple(kept["depends_on"]), "on_failure": OnFailure(kept["on_failure"])})


def action_of(document: Mapping[str, Any]) -> Action:
    """Return the action that `document_of` kept."""
    kept = document["action"]
    return Action(**{**kept, "result": {name: tuple(path) for name, path in kept["result"].items()}})
