"""Explanations, as they are answered. They are made in `receiver.domain.explanations`."""

from typing import Literal

from receiver.api.description.forms import Answered, Free, Id, Passed, Time
from receiver.domain.explanations import Act


class NextActAnswer(Answered):
    """What happens next."""

    action: Act
    at: Time | None
    """Null if nothing follows, or if it waits for what `blocked_by` names."""
    text: str


class BlockerAnswer(Passed):
    """What the next act waits for, with its numbers, times and ids."""

    code: str
    text: str


class ExplanationAnswer(Answered):
    """Why something is in its state, what happens next and when, what that waits for, and what may be done with it."""

    object: Literal["explanation"]
    status: str
    reason: str
    next: NextActAnswer
    blocked_by: list[BlockerAnswer]
    may: list[Literal["cancel", "retry", "refresh", "enable_webhook"]]
    facts: Free
    """What this follows from."""
    explained_at: Time


class TaskExplanationAnswer(ExplanationAnswer):
    """An explanation of a task."""

    task_id: Id


class RunExplanationAnswer(ExplanationAnswer):
    """An explanation of a run; `facts.steps` has what each step waits for."""

    run_id: Id


class DeliveryExplanationAnswer(ExplanationAnswer):
    """An explanation of a delivery."""

    delivery_id: Id
