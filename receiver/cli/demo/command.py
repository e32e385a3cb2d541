"""The commands `ringback demo` and, hidden, `ringback demo-subscriber`."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.console import Json, print_json
from receiver.cli.failure import Failure, Status

if TYPE_CHECKING:
    from receiver.cli.demo.environment import Environment

_TERMINATED = 143
_CHECK_SECONDS = 1.0


def demo(
    tasks: Annotated[int, typer.Option(min=20, max=2000, help="How many tasks.")] = 200,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running until Ctrl-C, to look around.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the main job end to end on this machine, with everything going wrong that can go wrong.

    The service, a sandbox provider and a subscriber run as separate processes in a temporary folder. 30 % of the
    provider's webhooks are lost, others come twice or out of order, the subscriber fails at times, and the service
    is killed with -9 half-way. Exit status 0 only if nothing was lost and nothing was made twice.
    """
    try:
        status = asyncio.run(_demo(tasks, keep=keep, as_json=as_json))
    except asyncio.CancelledError:
        raise typer.Exit(_TERMINATED) from None
    raise typer.Exit(status)


def demo_subscriber(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 0,
    seed: Annotated[int, typer.Option()] = 0,
    refuse_share: Annotated[float, typer.Option(min=0, max=1)] = 0.15,
) -> None:
    """Run the demo's subscriber; its secrets come as a line of JSON on standard input."""
    import orjson
    import uvicorn

    from receiver.cli.demo.subscriber import create_subscriber
    from receiver.cli.demo.subscriber_log import SubscriberLog
    from receiver.cli.listening import listen

    given = orjson.loads(sys.stdin.buffer.readline())
    log = SubscriberLog(given["secret"], given["callback_secret"], refuse_share=refuse_share, seed=seed)
    with listen(host, port) as (listening, _):
        config = uvicorn.Config(create_subscriber(log), log_level="warning", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listening])


async def _demo(count: int, *, keep: bool, as_json: bool) -> Status:
    from receiver.cli.demo import summary
    from receiver.cli.demo.environment import Environment
    from receiver.cli.demo.scenario import SEED, ended_by_sigterm, run_scenario
    from receiver.cli.demo.view import view_for

    async with ended_by_sigterm():
        with Environment(SEED) as environment:
            try:
                with view_for(as_json) as view:
                    result = await run_scenario(count, environment, view)
            except Exception as error:
                failure = _explained(error, environment)
                if failure is None:
                    raise
                raise failure from error
            if as_json:
                print_json(summary.as_json(result, environment))
            else:
                typer.echo(summary.as_text(result, environment, kept=keep))
            environment.keep_logs = not result.good
            if keep:
                sys.stdout.flush()
                await _until_ctrl_c(environment)
    if result.good:
        return Status.DONE
    return Status.TASK_FAILED if result.in_time else Status.TIMED_OUT


async def _until_ctrl_c(environment: "Environment") -> None:
    """Wait for Ctrl-C, which is how this is meant to end."""
    try:
        while True:
            environment.check()
            await asyncio.sleep(_CHECK_SECONDS)
    except asyncio.CancelledError:
        return


def _explained(error: Exception, environment: "Environment") -> Failure | None:
    """Return a failure that says what went wrong and where the logs are; None for a fault of the demo itself."""
    import httpx

    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    kept = f"the logs and the database are kept in {environment.folder}"
    match cause:
        case Failure():
            return Failure(cause.status, f"{cause.message}; {kept}")
        case httpx.HTTPError():
            message = f"{cause.request.url} does not answer as it should ({type(cause).__name__}); {kept}"
            return Failure(Status.UNREACHABLE, message)
    return None
