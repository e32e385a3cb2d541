"""How a command ends: the exit statuses, and the one exception that carries one."""

from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from receiver.errors import RingbackError, SettingsError


class Status(IntEnum):
    """The exit statuses that scripts rely on."""

    DONE = 0
    TASK_FAILED = 1
    """The task or the run."""
    USAGE = 2
    UNREACHABLE = 3
    """Not reachable, or not allowed."""
    TIMED_OUT = 4


class Failure(Exception):
    """A command cannot do what it was asked; `message` is one line that says what to do."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ServiceUnreachable(Failure):
    """The service cannot be reached now. It may come back."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.UNREACHABLE, message)


class FailingGroup(TyperGroup):
    """Turns failures of every command below it into a line on stderr and an exit status: the one place."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            raise _ended(failure.message, failure.status) from None
        except SettingsError as error:
            raise _ended(f"the settings are wrong:\n{error.message}", Status.USAGE) from None
        except RingbackError as error:
            raise _ended(error.message, Status.UNREACHABLE) from None


def _ended(message: str, status: Status) -> typer.Exit:
    typer.echo(f"ringback: {message}", err=True)
    return typer.Exit(status)
