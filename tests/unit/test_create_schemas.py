"""What a create without a `retry` means."""

from receiver.api.run_schemas import CreateRun
from receiver.api.schemas import CreateTask

TASK = {"model": "m", "task_type": "t", "input": {}}
STEP = {"id": "a", "action": "m:t"}


def test_a_task_is_tried_once_by_default_and_the_default_is_not_copied() -> None:
    first, second = (CreateTask.model_validate(TASK).retry for _ in range(2))
    assert (first.max_attempts, first.backoff_seconds) == (1, 1.0)
    assert first is second


def test_a_step_is_tried_three_times_by_default_and_the_default_is_not_copied() -> None:
    first, second = (step.retry for step in CreateRun.model_validate({"steps": [STEP, STEP]}).steps)
    assert (first.max_attempts, first.backoff_seconds) == (3, 1.0)
    assert first is second


def test_a_retry_that_is_given_has_the_other_defaults() -> None:
    given = CreateRun.model_validate({"steps": [{**STEP, "retry": {"backoff_seconds": 2}}]}).steps[0].retry
    assert (given.max_attempts, given.backoff_seconds) == (3, 2.0)
    assert CreateTask.model_validate({**TASK, "retry": {"max_attempts": 4}}).retry.backoff_seconds == 1.0
