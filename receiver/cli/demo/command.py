"""The command `ringback demo`."""

import asyncio
import contextlib
import signal
import sys
from typing import Annotated

import typer

from receiver.cli.console import Json, echo, print_json
from receiver.cli.failure import Status
from receiver.cli.interrupts import run_async

_TERMINATED = 143
_CHECK_SECONDS = 1.0


def demo(
    tasks: Annotated[int, typer.Option(min=20, max=2000, help="How many tasks to create.")] = 200,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the service running after the demo, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the main job end to end on this machine while webhooks get lost and the service is killed.

    A sandbox provider makes the tasks. 30 % of its webhooks are lost, others are sent twice or out of order, the
    subscriber fails at times, and the service is killed with -9 half-way. Everything is in a temporary folder.
    Exit status 0 only if no task and no notification was lost, and no task was made twice.
    """
    try:
        status = run_async(_demo(tasks, keep=keep, as_json=as_json))
    except asyncio.CancelledError:
        raise typer.Exit(_TERMINATED) from None
    raise typer.Exit(status)


async def _demo(count: int, *, keep: bool, as_json: bool) -> Status:
    from receiver.cli.demo import summary
    from receiver.cli.demo.environment import open_environment
    from receiver.cli.demo.progress import Display
    from receiver.cli.demo.scenario import SEED, run_scenario

    if (main := asyncio.current_task()) is not None:
        # SIGTERM cancels as Ctrl-C does, so that the service is stopped and the folder deleted.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    async with open_environment(SEED) as environment:
        with Display(as_json) as display:
            result = await run_scenario(count, environment, display)
        environment.keep_files = not result.good
        if as_json:
            print_json(summary.as_json(result, environment))
        else:
            echo(summary.as_text(result, environment, kept=keep), lines=True)
        if keep:
            sys.stdout.flush()
            with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C and SIGTERM are the regular end
                while True:
                    environment.service.check()
                    await asyncio.sleep(_CHECK_SECONDS)
    if result.good:
        return Status.DONE
    return Status.TASK_FAILED if result.in_time else Status.TIMED_OUT
