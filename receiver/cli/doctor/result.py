"""What a check of `ringback doctor` found, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What a check came to."""

    OK = "ok"
    LOOK = "look"
    """It works, and a person should look at it."""
    BAD = "bad"
    """Something does not work, or is about to be lost."""
    SKIPPED = "skipped"
    """It could not be checked, for a reason that is no fault."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: its name, its outcome, one line that says what was found, and one that says what to mend."""

    check: str
    outcome: Outcome
    found: str
    mend: str = ""


def ok(check: str, found: str) -> CheckResult:
    """Return the result of a check that found nothing to mend."""
    return CheckResult(check, Outcome.OK, found)


def look(check: str, found: str, mend: str) -> CheckResult:
    """Return a result that a person should look at."""
    return CheckResult(check, Outcome.LOOK, found, mend)


def bad(check: str, found: str, mend: str) -> CheckResult:
    """Return the result of a check that found something that does not work."""
    return CheckResult(check, Outcome.BAD, found, mend)


def skipped(check: str, found: str, mend: str = "") -> CheckResult:
    """Return the result of a check that could not be made."""
    return CheckResult(check, Outcome.SKIPPED, found, mend)
