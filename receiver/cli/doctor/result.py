"""What a check of `ringback doctor` found, and what to do about it."""

from enum import StrEnum

from msgspec import Struct


class DoctorOutcome(StrEnum):
    """What a check came to."""

    OK = "ok"
    LOOK = "look"
    """It works, and a person should look at it."""
    BAD = "bad"
    """Something does not work, or is about to be lost."""
    SKIPPED = "skipped"
    """It could not be checked, for a reason that is no fault."""


class DoctorResult(Struct, frozen=True):
    """One check: its name, its outcome, one line that says what was found, and one that says what to mend."""

    check: str
    outcome: DoctorOutcome
    found: str
    mend: str = ""


def ok(check: str, found: str) -> DoctorResult:
    """Return the result of a check that found nothing to mend."""
    return DoctorResult(check, DoctorOutcome.OK, found)


def look(check: str, found: str, mend: str) -> DoctorResult:
    """Return a result that a person should look at."""
    return DoctorResult(check, DoctorOutcome.LOOK, found, mend)


def bad(check: str, found: str, mend: str) -> DoctorResult:
    """Return the result of a check that found something that does not work."""
    return DoctorResult(check, DoctorOutcome.BAD, found, mend)


def skipped(check: str, found: str, mend: str = "") -> DoctorResult:
    """Return the result of a check that could not be made."""
    return DoctorResult(check, DoctorOutcome.SKIPPED, found, mend)
