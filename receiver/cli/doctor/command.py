"""The command `ringback doctor`: makes the checks, prints them as they come, and ends with what they mean."""

from collections.abc import Iterable
from typing import Annotated

import typer
from msgspec.structs import asdict

from receiver.cli.console import Json, print_json, print_marked, spinner
from receiver.cli.doctor.result import DoctorOutcome, DoctorResult, bad, skipped
from receiver.cli.failure import Status
from receiver.cli.interrupts import run_async

_MARK_WIDTH = 9
_RANKS = (DoctorOutcome.BAD, DoctorOutcome.LOOK, DoctorOutcome.OK)


def doctor(
    slow: Annotated[
        bool, typer.Option("--slow", help="Also hold a long poll (30 s) and a stream (60 s) through the public URL.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the settings, database, clock, provider, public URL, webhooks and backlog, and say what to mend.

    Run it on the machine that serves, in the folder and with the environment of the service, which may run. Nothing is
    changed; the provider gets one call that costs nothing, subscribers nothing at all. The public URL gets signed
    probes, which the service behind it answers with what arrived.
    """
    results = run_async(_examine(slow, as_json))
    status = next((rank for rank in _RANKS if any(each.outcome is rank for each in results)), DoctorOutcome.OK)
    if as_json:
        print_json({"status": status, "checks": [asdict(each) for each in results]})
    else:
        good, odd, wrong = (sum(each.outcome is rank for each in results) for rank in reversed(_RANKS))
        words = f"{good} are well, {odd} to be looked at, {wrong} bad"
        print_marked(status, f"in all: {words}", width=_MARK_WIDTH)
    raise typer.Exit(_exit_status(results))


async def _examine(slow: bool, as_json: bool) -> list[DoctorResult]:
    """Make the checks, and print each as it is made, unless it is to be JSON."""
    from receiver.cli.doctor.examination import sections
    from receiver.cli.doctor.settings_checks import read_settings
    from receiver.errors import RingbackError
    from receiver.telemetry.log import configure_logging

    configure_logging("text", "error")  # what the checks find is in their results
    settings, results = read_settings()
    _print(results, as_json)
    if settings is None:
        rest = [skipped("everything else", "the settings are to be corrected first")]
        _print(rest, as_json)
        return [*results, *rest]
    async for name, check in sections(settings, slow=slow):
        with spinner(f"looking at {name}", as_json):
            try:
                found = await check()
            except RingbackError as error:
                found = [bad(name, error.message, "see deploy/guides/doctor.md")]
        _print(found, as_json)
        results += found
    return results


def _print(results: Iterable[DoctorResult], as_json: bool) -> None:
    if as_json:
        return
    for each in results:
        print_marked(each.outcome, f"{each.check}: {each.found}", width=_MARK_WIDTH)
        if each.mend:
            print_marked("", f"mend: {each.mend}", width=_MARK_WIDTH)


def _exit_status(results: Iterable[DoctorResult]) -> Status:
    from receiver.cli.doctor.database_checks import CANNOT_OPEN

    failed = [each for each in results if each.outcome is DoctorOutcome.BAD]
    if any(each.check == CANNOT_OPEN for each in failed):
        return Status.UNREACHABLE
    return Status.TASK_FAILED if failed else Status.DONE
