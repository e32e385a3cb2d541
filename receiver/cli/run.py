"""`ringback run`: create, get, explain, cancel, graph."""

from enum import StrEnum
from typing import Annotated

import typer

from receiver.cli.console import Json, echo, print_json, print_result, print_table, spinner
from receiver.cli.failure import Failure, Status
from receiver.cli.options import Timeout, Wait

app = typer.Typer(no_args_is_help=True, help="Create runs of several steps, show them, cancel them.")

RunIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]


@app.command(
    epilog="The file is a body of `POST /api/v1/runs`: `steps`, and `metadata` if you like.\n\n"
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
    _get(run_id, wait, timeout, as_json)


@app.command(epilog="Example: ringback run get 01998c2e-7d1b-7f00-8000-000000000000 --wait --timeout 600")
def get(run_id: RunIdArgument, wait: Wait = False, timeout: Timeout = None, as_json: Json = False) -> None:
    """Print a run as it is now, or with --wait when it has ended."""
    _get(run_id, wait, timeout, as_json)


@app.command(epilog="It is made of the stored state at this moment: nothing is asked of the provider or the endpoint.")
def explain(run_id: RunIdArgument, as_json: Json = False) -> None:
    """Print why a run is in its state, what happens next and when, and what that waits for."""
    from receiver.cli.service import path_segment, service
    from receiver.cli.show import print_explanation

    with spinner("loading", as_json), service() as client:
        explanation = client.call("GET", f"/api/v1/runs/{path_segment(run_id)}/explain")
    print_result(explanation, as_json, print_explanation)


@app.command(epilog="Tasks in progress are cancelled at the provider where it allows that; others are left to end.")
def cancel(run_id: RunIdArgument, as_json: Json = False) -> None:
    """Cancel a run: no further step of it begins."""
    from receiver.cli.service import path_segment, service
    from receiver.cli.show import print_run

    with spinner("cancelling", as_json), service() as client:
        run = client.call("POST", f"/api/v1/runs/{path_segment(run_id)}/cancel")
    print_result(run, as_json, print_run)


class GraphForm(StrEnum):
    """The forms of a run's graph."""

    TEXT = "text"
    DOT = "dot"
    MERMAID = "mermaid"
    JSON = "json"


@app.command(
    epilog="Examples:\n\n  ringback run graph $ID\n\n  ringback run graph $ID --format dot | dot -Tsvg > run.svg"
)
def graph(
    run_id: RunIdArgument,
    form: Annotated[GraphForm, typer.Option("--format", help="For a person, or another program.")] = GraphForm.TEXT,
    as_json: Json = False,
) -> None:
    """Print a run's steps as a graph: by level, each below the steps that it depends on, with their states."""
    from receiver.cli.run_graph import as_document, as_dot, as_mermaid, as_rows
    from receiver.cli.service import path_segment, service

    with spinner("loading", as_json), service() as client:
        run = client.call("GET", f"/api/v1/runs/{path_segment(run_id)}")
    match GraphForm.JSON if as_json else form:
        case GraphForm.JSON:
            print_json(as_document(run))
        case GraphForm.DOT:
            echo(as_dot(run), lines=True)
        case GraphForm.MERMAID:
            echo(as_mermaid(run), lines=True)
        case GraphForm.TEXT:
            echo(f"{run['id']} is {run['status']}")
            print_table(("level", "step", "action", "status", "after"), as_rows(run["steps"]))


def _get(run_id: str, wait: bool, timeout: float | None, as_json: bool) -> None:
    from receiver.cli.service import path_segment, service
    from receiver.cli.show import print_run

    if wait:
        _wait(run_id, timeout, as_json)
    with spinner("loading", as_json), service() as client:
        run = client.call("GET", f"/api/v1/runs/{path_segment(run_id)}")
    print_result(run, as_json, print_run)


def _wait(run_id: str, timeout: float | None, as_json: bool) -> None:
    """Wait for a run, print it, and end the command with the exit status that its state means."""
    from receiver.cli.show import print_run
    from receiver.cli.waiting import end_status, wait_for_run

    run = wait_for_run(run_id, timeout, as_json=as_json)
    print_result(run or {"id": run_id}, as_json, print_run)
    status = end_status([run])
    if status is Status.TIMED_OUT:
        message = f"the run has not ended after {timeout:g} s; wait again with `run get {run_id} --wait`"
        raise Failure(status, message)
    raise typer.Exit(status)
