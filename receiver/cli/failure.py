"""How a command ends: the exit statuses, and the exception that carries one of them with a message."""

from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from receiver.cli.console import echo
from receiver.errors import RingbackError, SettingsError


class Status(IntEnum):
    """The exit statuses, which scripts rely on."""

    DONE = 0
    TASK_FAILED = 1
    """The task or the run failed or was cancelled; also: not every line, delivery or ping succeeded, or a
    report does not add up."""
    USAGE = 2
    """The command line, a setting, or the request was wrong."""
    UNREACHABLE = 3
    """The service was not reachable, or did not allow it; also: the service could not start."""
    TIMED_OUT = 4
    """The time to wait was over."""


class Failure(Exception):
    """A command cannot do what was requested. `message` is one line: what is wrong, then what to do."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ServiceUnreachable(Failure):
    """The service cannot be reached at the moment; a retry may succeed."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.UNREACHABLE, message)


class _Answered:
    """The URL that answered last; empty before any did."""

    url = ""


_LONGEST_REASON = 100
_MISREAD = (LookupError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading an answer raises that has another shape than the service's."""


def note_answer(url: str) -> None:
    """Note that a URL answered: an exception of reading it names it from now on."""
    _Answered.url = url


class FailureReportingGroup(TyperGroup):
    """The root command. It alone turns failures of the commands into a message on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand that the user named."""
        note_answer("")
        try:
            return super().invoke(ctx)
        except (Failure, RingbackError) as failure:
            message, status = message_and_status(failure)
            raise _exit(message, status, lines=isinstance(failure, SettingsError)) from None
        except _MISREAD as error:
            if not _Answered.url:  # nothing was read: it is a fault of the command
                raise
            message = (
                f"the answer of {_Answered.url} is not Ringback's; check RINGBACK_URL, and that it has the version"
            )
            reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
            raise _exit(f"{message} of this command ({reason})", Status.UNREACHABLE) from None


def message_and_status(failure: Failure | RingbackError) -> tuple[str, Status]:
    """Return what a failure is reported as; the message of wrong settings has a line for each of them."""
    if isinstance(failure, Failure):
        return failure.message, failure.status
    if isinstance(failure, SettingsError):
        return f"the settings are wrong:\n{failure.message}", Status.USAGE
    return failure.message, Status.UNREACHABLE


def _exit(message: str, status: Status, *, lines: bool = False) -> typer.Exit:
    echo(f"ringback: {message}", err=True, lines=lines)
    return typer.Exit(status)
