"""The command line's own copies of states and names agree with `models`, which it does not import, to start fast."""

import subprocess
import sys
from enum import StrEnum

import pytest

from models import RUN_TERMINAL, STEP_TERMINAL, TERMINAL, DeliveryFormat, DeliveryStatus, Scope, StepStatus, TaskStatus
from receiver.cli.delivery import DeliveryStatusChoice
from receiver.cli.key import ScopeChoice
from receiver.cli.progress import STEP_UNDER_WAY
from receiver.cli.show import ENDS
from receiver.cli.task import TaskStatusChoice
from receiver.cli.webhook import FormatChoice


@pytest.mark.parametrize(
    ("choice", "state"),
    [
        (TaskStatusChoice, TaskStatus),
        (DeliveryStatusChoice, DeliveryStatus),
        (ScopeChoice, Scope),
        (FormatChoice, DeliveryFormat),
    ],
)
def test_a_choice_has_the_values_of_its_model(choice: type[StrEnum], state: type[StrEnum]) -> None:
    assert list(map(str, choice)) == list(map(str, state))


def test_tasks_and_runs_end_in_the_terminal_states() -> None:
    assert set(map(str, TERMINAL)) == set(map(str, RUN_TERMINAL)) == ENDS


def test_a_step_is_under_way_from_its_beginning_to_its_end() -> None:
    assert set(map(str, set(StepStatus) - STEP_TERMINAL - {StepStatus.PENDING})) == STEP_UNDER_WAY


def imported(module: str, slow: set[str]) -> str:
    """Return which of the slow modules an import of `module` in a new process brings with it."""
    program = f"import sys, {module}; print(sorted({slow} & set(sys.modules)))"
    return subprocess.check_output([sys.executable, "-c", program], text=True)


def test_the_command_line_imports_nothing_slow_before_a_command_runs() -> None:
    slow = {"models", "httpx", "pydantic", "rich", "sqlalchemy", "structlog", "uvicorn"}
    assert imported("receiver.cli.commands", slow) == "[]\n"


@pytest.mark.parametrize(
    "module", ["receiver.serving.worker", "receiver.serving.process", "receiver.serving.supervisor"]
)
def test_the_processes_are_kept_without_the_application_and_the_settings(module: str) -> None:
    slow = {"models", "httpx", "pydantic", "sqlalchemy", "starlette", "uvicorn", "receiver.app", "receiver.settings"}
    assert imported(module, slow) == "[]\n"
