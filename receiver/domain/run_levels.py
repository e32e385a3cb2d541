"""The steps of a run by level, and the edges between them, of steps as the API returns them. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

StepView = Mapping[str, Any]
"""A step as the API returns it."""


def levels(steps: Sequence[StepView]) -> list[list[StepView]]:
    """Return the steps by level: those of the first depend on none, each other one is below all that it depends on."""
    known = {step["id"] for step in steps}
    level: dict[str, int] = {}
    left = list(steps)
    while left:
        ready = [step for step in left if all(each in level for each in _above(step, known))]
        if not ready:  # no run has a cycle; what is not one of Ringback's is shown nevertheless
            ready = left
        number = {
            step["id"]: 1 + max((level.get(each, -1) for each in _above(step, known)), default=-1) for step in ready
        }
        level.update(number)
        left = [step for step in left if step["id"] not in level]
    deepest = max(level.values(), default=-1)
    return [[step for step in steps if level[step["id"]] == number] for number in range(deepest + 1)]


def edges(steps: Sequence[StepView]) -> list[tuple[str, str]]:
    """Return each pair of steps of which the second depends on the first."""
    known = {step["id"] for step in steps}
    return [(before, step["id"]) for step in steps for before in _above(step, known)]


def _above(step: StepView, known: set[str]) -> list[str]:
    return [each for each in step.get("depends_on") or () if each in known]
