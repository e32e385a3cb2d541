"""`ringback task`: create, get, list, wait, cancel, retry."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, print_json, spinner
from receiver.cli.failure import Failure, Status

app = typer.Typer(no_args_is_help=True, help="Create tasks, look at them, wait for them, cancel them, retry them.")

TaskId = Annotated[str, typer.Argument(metavar="ID", help="Ringback's task id, or the provider's.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="Stop waiting after so long; exit status 4.")
]


class TaskStatusChoice(StrEnum):
    """The states that a list can be narrowed to."""

    QUEUED = "queued"
    STAGED = "staged"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command(
    epilog="Examples:\n\n"
    "  ringback task create --model Qubico/flux1-dev --task-type txt2img -i prompt='a cat' --wait\n\n"
    "  ringback task create --model kling --task-type video_generation --input @input.json --json\n\n"
    "  ringback task create --bulk tasks.jsonl > ids.txt\n\n"
    'Each line of a bulk is what `POST /api/v1/task` takes: {"model": ..., "task_type": ..., "input": {...}}. '
    "Lines that are refused are named, and the exit status is 1; the others are created."
)
def create(
    model: Annotated[str | None, typer.Option(help="The provider's model, such as kling.")] = None,
    task_type: Annotated[str | None, typer.Option(help="What the model is to do, such as video_generation.")] = None,
    bulk: Annotated[
        str | None, typer.Option(metavar="FILE", help="Create a task for each line of JSON; - is stdin.")
    ] = None,
    input_json: Annotated[
        str, typer.Option("--input", metavar="JSON", help="The model's input: JSON, @FILE, or @- for stdin.")
    ] = "{}",
    field: Annotated[
        list[str] | None,
        typer.Option("-i", "--field", metavar="KEY=VALUE", help="One field of the input; the value is JSON or text."),
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to tell of this task, in PiAPI's form.")
    ] = None,
    webhook_secret: Annotated[str | None, typer.Option(help="Sent to that URL as x-webhook-secret.")] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Your own words on the task: JSON or @FILE.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it ends; exit status 1 if it fails.")] = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Create a task and print it, or many and print their ids."""
    from receiver.cli.bulk import create_bulk
    from receiver.cli.inputs import json_object, typed_pairs
    from receiver.cli.service import service

    if bulk is not None:
        if model or task_type or field or webhook or webhook_secret or metadata or wait or input_json != "{}":
            raise Failure(Status.USAGE, "--bulk goes with no other option but --json: the lines say it all")
        with service() as client:
            create_bulk(client, bulk, as_json)
        return
    if model is None or task_type is None:
        raise Failure(Status.USAGE, "give --model and --task-type, or --bulk FILE")
    if webhook_secret is not None and webhook is None:
        raise Failure(Status.USAGE, "--webhook-secret needs --webhook URL")
    body: dict[str, Any] = {
        "model": model,
        "task_type": task_type,
        "input": json_object(input_json, "--input") | typed_pairs(field or (), "-i"),
    }
    if webhook is not None:
        body["config"] = {"webhook_config": {"endpoint": webhook, "secret": webhook_secret or ""}}
    if metadata is not None:
        body["metadata"] = json_object(metadata, "--metadata")
    with spinner("creating the task", as_json), service() as client:
        task = client.call("POST", "/api/v1/task", body=body)
    if wait:
        _wait([task["task_id"]], timeout, as_json)
    _print(task, as_json)


@app.command(epilog="Example: ringback task get 01998c2e-7d1b-7f00-8000-000000000000 --json")
def get(task_id: TaskId, as_json: Json = False) -> None:
    """Print a task as it is now."""
    from receiver.cli.service import segment, service

    with spinner("looking", as_json), service() as client:
        task = client.call("GET", f"/api/v1/tasks/{segment(task_id)}")
    _print(task, as_json)


@app.command(
    "list",
    epilog="Examples:\n\n"
    "  ringback task list --status failed --created-after 2025-11-01T00:00:00Z\n\n"
    "  ringback task list --metadata campaign=spring --all --json",
)
def list_tasks(
    status: Annotated[TaskStatusChoice | None, typer.Option(help="Only tasks in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    task_type: Annotated[str | None, typer.Option(help="Only of this type.")] = None,
    created_after: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601 or unix seconds.")] = None,
    created_before: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601 or unix seconds.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with this in their metadata; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    as_json: Json = False,
) -> None:
    """List tasks, the newest first."""
    from receiver.cli.inputs import pairs
    from receiver.cli.service import service
    from receiver.cli.show import print_tasks

    filters = {
        "status": status.value if status else None,
        "model": model,
        "task_type": task_type,
        "created_after": created_after,
        "created_before": created_before,
        **{f"metadata[{key}]": value for key, value in pairs(metadata or (), "--metadata").items()},
    }
    given = {name: value for name, value in filters.items() if value is not None}
    with spinner("looking", as_json), service() as client:
        page = client.collect("/api/v1/tasks", given, None if everything else limit)
    if as_json:
        print_json(page)
        return
    print_tasks(page["data"])
    if page["has_more"]:
        typer.echo("There are more: --limit N, or --all.", err=True)


@app.command(
    epilog="Several ids are waited for side by side. With --json one id prints its task, several print a list "
    '(`{"object": "list", "data": [...]}`) in the order given.\n\n'
    "Exit status: 0 all completed, 1 one failed or was cancelled, 4 not all ended in time.\n\n"
    "Example: ringback task wait $ID --timeout 600 --json"
)
def wait(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The tasks' ids.")],
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Wait until tasks end, and print them."""
    _wait(list(dict.fromkeys(ids)), timeout, as_json)


@app.command(epilog="Only a task that the provider has not begun can be cancelled, and not every model allows it.")
def cancel(task_id: TaskId, as_json: Json = False) -> None:
    """Cancel a task."""
    from receiver.cli.service import segment, service

    with spinner("cancelling", as_json), service() as client:
        task = client.call("POST", f"/api/v1/task/{segment(task_id)}/cancel")
    if as_json:
        print_json(task)
    else:
        typer.echo(f"{task_id} is cancelled")


@app.command(
    epilog="A task that failed with submission_unknown may have been made, and paid for, the first time too.\n\n"
    "Example: ringback task retry 01998c2e-7d1b-7f00-8000-000000000000 --wait"
)
def retry(
    task_id: TaskId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it ends; exit status 1 if it fails.")] = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Try a task again that failed or was cancelled; its id stays the same."""
    from receiver.cli.service import segment, service

    with spinner("retrying", as_json), service() as client:
        task = client.call("POST", f"/api/v1/tasks/{segment(task_id)}/retry")
    if wait:
        _wait([task["task_id"]], timeout, as_json)
    _print(task, as_json)


def _print(task: Any, as_json: bool) -> None:
    from receiver.cli.show import print_task

    if as_json:
        print_json(task)
    else:
        print_task(task)


def _wait(ids: list[str], timeout: float | None, as_json: bool) -> None:
    """Wait, print the tasks, and end the command with the status that this means."""
    from receiver.cli.show import print_task
    from receiver.cli.waiting import status_of, wait_for

    waited = wait_for(ids, timeout, as_json=as_json)
    known = [each.task or {"task_id": each.task_id} for each in waited]
    if as_json:
        print_json(known[0] if len(known) == 1 else {"object": "list", "data": known})
    else:
        for number, task in enumerate(known):
            if number:
                typer.echo()
            print_task(task)
    status = status_of(waited)
    if status is Status.TIMED_OUT:
        late = sum(not each.ended for each in waited)
        raise Failure(
            status, f"{late} of {len(waited)} not ended after {timeout:g} s; wait again, or look with `task get`"
        )
    raise typer.Exit(status)
