"""`ringback run`: create, get, cancel."""

from typing import Annotated, Any

import typer

from receiver.cli.console import Json, print_json, spinner
from receiver.cli.failure import Failure, Status

app = typer.Typer(no_args_is_help=True, help="Create runs of several steps, look at them, cancel them.")

RunIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it ends; exit status 1 if it does not complete.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="With --wait: stop after so long; exit status 4.")
]


@app.command(
    epilog="The file is the body of `POST /api/v1/runs`: steps, and metadata if you like.\n\n"
    "Examples:\n\n  ringback run create -f launch.json --wait\n\n"
    "  jq '.metadata.order = 17' launch.json | ringback run create -f - --json"
)
def create(
    file: Annotated[str, typer.Option("-f", "--file", metavar="FILE", help="The run as JSON; - is stdin.")],
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Create a run and print it."""
    from receiver.cli.inputs import json_file
    from receiver.cli.service import service

    body = json_file(file, "--file")
    with spinner("creating the run", as_json), service() as client:
        run_id = client.call("POST", "/api/v1/runs", body=body)["run_id"]
    _show(run_id, wait, timeout, as_json)


@app.command(epilog="Example: ringback run get 01998c2e-7d1b-7f00-8000-000000000000 --wait --timeout 600")
def get(run_id: RunIdArgument, wait: Wait = False, timeout: Timeout = None, as_json: Json = False) -> None:
    """Print a run as it is now, or with --wait as it ends."""
    _show(run_id, wait, timeout, as_json)


@app.command(epilog="What is under way at a provider is cancelled there if it allows it, and else left to end.")
def cancel(run_id: RunIdArgument, as_json: Json = False) -> None:
    """Cancel a run: no further step of it begins."""
    from receiver.cli.service import segment, service

    with spinner("cancelling", as_json), service() as client:
        run = client.call("POST", f"/api/v1/runs/{segment(run_id)}/cancel")
    _print(run, as_json)


def _show(run_id: str, wait: bool, timeout: float | None, as_json: bool) -> None:
    from receiver.cli.service import segment, service

    if wait:
        _wait(run_id, timeout, as_json)
    with spinner("looking", as_json), service() as client:
        run = client.call("GET", f"/api/v1/runs/{segment(run_id)}")
    _print(run, as_json)


def _wait(run_id: str, timeout: float | None, as_json: bool) -> None:
    """Wait, print the run, and end the command with the status that this means."""
    from receiver.cli.waiting import end_status, wait_for_run

    run = wait_for_run(run_id, timeout, as_json=as_json)
    _print(run or {"id": run_id}, as_json)
    status = end_status([run])
    if status is Status.TIMED_OUT:
        raise Failure(status, f"not ended after {timeout:g} s; wait again with `run get {run_id} --wait`")
    raise typer.Exit(status)


def _print(run: Any, as_json: bool) -> None:
    from receiver.cli.steps import print_run

    if as_json:
        print_json(run)
    else:
        print_run(run)
