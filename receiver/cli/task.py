"""`ringback task`: create, get, list, export, wait, explain, refresh, cancel, retry."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, echo, print_json, print_page, print_result, spinner
from receiver.cli.failure import Failure, Status
from receiver.cli.options import (
    SHOWN_TO_OTHERS,
    AllMatching,
    CreatedAfter,
    CreatedBefore,
    DryRun,
    Limit,
    ListAll,
    MetadataOption,
    ModelOption,
    ProviderOption,
    RunOption,
    SecretFile,
    TaskTypeOption,
    Timeout,
    Wait,
    Yes,
)

app = typer.Typer(no_args_is_help=True, help="Create tasks, show them, wait for them, cancel them, retry them.")

TaskId = Annotated[str, typer.Argument(metavar="ID", help="Ringback's task id, or the provider's.")]


class TaskStatusChoice(StrEnum):
    """The states by which a list can be filtered."""

    # The same as `models.states.TaskStatus`, which is not imported: importing `models` would slow every command down.
    QUEUED = "queued"
    STAGED = "staged"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ExportFormChoice(StrEnum):
    """The forms of an export."""

    JSONL = "jsonl"
    CSV = "csv"


OptionalTaskId = Annotated[
    str | None, typer.Argument(metavar="ID", help="Ringback's task id, or the provider's.", show_default=False)
]
TaskStatusOption = Annotated[TaskStatusChoice | None, typer.Option("--status", help="Only tasks in this state.")]


@app.command(
    epilog="Examples:\n\n"
    "  ringback task create --model Qubico/flux1-dev --task-type txt2img -i prompt='a cat' --wait\n\n"
    "  ringback task create --model kling --task-type video_generation --input @input.json --json\n\n"
    "  ringback task create --provider fal --model fal-ai/flux/dev --task-type queue -i prompt='a cat'\n\n"
    "  ringback task create --bulk tasks.jsonl > ids.txt\n\n"
    "Each line of a bulk file is a body of `POST /api/v1/task`: "
    '{"model": ..., "task_type": ..., "input": {...}}. '
    "If lines are refused, they are reported by their number and the exit status is 1; the other lines' tasks are "
    "created."
)
def create(
    model: Annotated[str | None, typer.Option(help="The provider's model, such as kling.")] = None,
    task_type: Annotated[str | None, typer.Option(help="The model's task type, such as video_generation.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where it is made, by default PiAPI; as shown by `ringback provider list`."),
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="The account at the provider, by default your organization's.")
    ] = None,
    bulk: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Create a task for each line of a file of JSON lines; - is stdin."),
    ] = None,
    input_json: Annotated[
        str, typer.Option("--input", metavar="JSON", help="The model's input: JSON, @FILE, or @- for stdin.")
    ] = "{}",
    field: Annotated[
        list[str] | None,
        typer.Option(
            "-i", "--field", metavar="KEY=VALUE", help="One field of the input; its value is JSON, or else text."
        ),
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="A URL to notify of this task, in PiAPI's format.")
    ] = None,
    webhook_secret: Annotated[
        str | None, typer.Option(help=f"Sent to that URL as x-webhook-secret. {SHOWN_TO_OTHERS}")
    ] = None,
    webhook_secret_file: SecretFile = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Your own metadata for the task: JSON or @FILE.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Create a task and print it, or create many and print their ids."""
    from receiver.cli.bulk import create_bulk
    from receiver.cli.inputs import json_object, secret_of, typed_pairs, without_none
    from receiver.cli.service import service

    webhook_secret = secret_of(webhook_secret, webhook_secret_file, "--webhook-secret")
    if bulk is not None:
        others = (model, task_type, provider, account, field, webhook, webhook_secret, metadata, wait)
        if any(others) or input_json != "{}":
            raise Failure(Status.USAGE, "--bulk allows no other option but --json; put the rest into the file's lines")
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
        **without_none({"provider": provider, "account": account}),
    }
    if webhook is not None:
        body["config"] = {"webhook_config": {"endpoint": webhook, "secret": webhook_secret or ""}}
    if metadata is not None:
        body["metadata"] = json_object(metadata, "--metadata")
    with spinner("creating the task", as_json), service() as client:
        task = client.call("POST", "/api/v1/task", body=body)
    _finish(task, wait, timeout, as_json)


@app.command(epilog="Example: ringback task get 01998c2e-7d1b-7f00-8000-000000000000 --json")
def get(task_id: TaskId, as_json: Json = False) -> None:
    """Print a task as it is now."""
    from receiver.cli.service import path_segment, service
    from receiver.cli.show import print_task

    with spinner("loading", as_json), service() as client:
        task = client.call("GET", f"/api/v1/tasks/{path_segment(task_id)}")
    print_result(task, as_json, print_task)


@app.command(
    "list",
    epilog="Examples:\n\n"
    "  ringback task list --status failed --created-after 24h\n\n"
    "  ringback task list --metadata campaign=spring --all --json\n\n"
    "  ringback task list --search flux --watch",
)
def list_tasks(
    status: TaskStatusOption = None,
    model: ModelOption = None,
    task_type: TaskTypeOption = None,
    provider: ProviderOption = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: MetadataOption = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only tasks with this id, provider's id, model or value of metadata."),
    ] = None,
    limit: Limit = 20,
    list_all: ListAll = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the list live, until q or Ctrl-C; without a terminal, once.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List tasks, newest first."""
    from receiver.cli.inputs import without_none
    from receiver.cli.live import has_terminal
    from receiver.cli.service import service
    from receiver.cli.show import print_tasks

    filters = _as_query(_filters(status, model, task_type, provider, created_after, created_before, metadata)) | {
        "q": search
    }
    if watch and has_terminal() and not as_json:
        from receiver.cli.task_watch import watch_tasks

        with service() as client:
            of_stream = without_none({"model": model, "task_type": task_type})
            watch_tasks(lambda: client.collect("/api/v1/tasks", filters, limit)["data"], of_stream)
        return
    with spinner("loading", as_json), service() as client:
        page = client.collect("/api/v1/tasks", filters, None if list_all else limit)
    print_page(page, as_json, print_tasks)


@app.command(
    epilog="jsonl has the tasks as `GET /api/v1/tasks` lists them, one a line. The first line of csv names its "
    "columns; metadata, input and output are JSON there, and a text that a spreadsheet would take for a formula begins "
    "with '.\n\n"
    "Examples:\n\n"
    "  ringback task export --created-after 30d --output tasks.jsonl\n\n"
    "  ringback task export --status failed --format csv > failed.csv"
)
def export(
    form: Annotated[ExportFormChoice, typer.Option("--format", help="JSON lines, or CSV.")] = ExportFormChoice.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write, by default stdout; it gets its name when it is whole."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    status: TaskStatusOption = None,
    model: ModelOption = None,
    task_type: TaskTypeOption = None,
    provider: ProviderOption = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: MetadataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, about the file.")] = False,
) -> None:
    """Export all tasks, newest first, also while others are created: those that there are now, each once."""
    from receiver.cli.export import export as export_tasks
    from receiver.cli.progress import export_progress
    from receiver.cli.service import service

    if output == Path("-"):
        output = None
    if output is not None and output.exists() and not force:
        raise Failure(Status.USAGE, f"{output} exists; name another file, or replace it with --force")
    filters = _as_query(_filters(status, model, task_type, provider, created_after, created_before, metadata))
    with service() as client, export_progress(as_json, to_stdout=output is None) as advance:
        count = export_tasks(client, filters, form, output, advance)
    if output is not None:
        print_result({"file": str(output), "tasks": count}, as_json, lambda _made: echo(f"{output}: {count} tasks"))


@app.command(
    epilog="Several tasks are waited for concurrently. With --json, one id prints its task, and several ids print a "
    'list (`{"object": "list", "data": [...]}`) in the order given.\n\n'
    "Exit status: 0 all completed, 1 one failed or was cancelled, 4 not all ended in time.\n\n"
    "Example: ringback task wait $ID --timeout 600 --json"
)
def wait(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The tasks' ids.")],
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Wait until tasks have ended, and print them."""
    _wait(list(dict.fromkeys(ids)), timeout, as_json)


@app.command(epilog="It is made of the stored state at this moment: nothing is asked of the provider or the endpoint.")
def explain(task_id: TaskId, as_json: Json = False) -> None:
    """Print why a task is in its state, what happens next and when, and what that waits for."""
    from receiver.cli.service import path_segment, service
    from receiver.cli.show import print_explanation

    with spinner("loading", as_json), service() as client:
        explanation = client.call("GET", f"/api/v1/tasks/{path_segment(task_id)}/explain")
    print_result(explanation, as_json, print_explanation)


@app.command(
    epilog="Examples:\n\n  ringback task refresh $ID\n\n"
    "  ringback task refresh --all-matching --status processing --created-before 1h\n\n"
    "With --all-matching the tasks that have not ended are polled as soon as the provider's limit allows."
)
def refresh(
    task_id: OptionalTaskId = None,
    all_matching: AllMatching = False,
    status: TaskStatusOption = None,
    model: ModelOption = None,
    task_type: TaskTypeOption = None,
    provider: ProviderOption = None,
    run: RunOption = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: MetadataOption = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Ask the provider about a task now and print it, or have all tasks that match polled soon."""
    from receiver.cli.service import path_segment, service

    filters = _filters(status, model, task_type, provider, created_after, created_before, metadata, run)
    if task_id is None or all_matching:
        _change_matching("refresh", task_id, all_matching, filters, dry_run, yes, as_json)
        return
    _only_for_all_matching(filters, dry_run, yes)
    with spinner("asking the provider", as_json), service() as client:
        task = client.call("POST", f"/api/v1/tasks/{path_segment(task_id)}/refresh")
    _finish(task, False, None, as_json)


@app.command(
    epilog="A task can be cancelled only before the provider begins it, and not with every model.\n\n"
    "Examples:\n\n  ringback task cancel $ID\n\n"
    "  ringback task cancel --all-matching --model kling --created-before 24h --dry-run\n\n"
    "Exit status with --all-matching: 0 all were cancelled, 1 some were refused."
)
def cancel(
    task_id: OptionalTaskId = None,
    all_matching: AllMatching = False,
    status: TaskStatusOption = None,
    model: ModelOption = None,
    task_type: TaskTypeOption = None,
    provider: ProviderOption = None,
    run: RunOption = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: MetadataOption = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel a task, or all tasks that match."""
    from receiver.cli.service import path_segment, service

    filters = _filters(status, model, task_type, provider, created_after, created_before, metadata, run)
    if task_id is None or all_matching:
        _change_matching("cancel", task_id, all_matching, filters, dry_run, yes, as_json)
        return
    _only_for_all_matching(filters, dry_run, yes)
    with spinner("cancelling", as_json), service() as client:
        task = client.call("POST", f"/api/v1/task/{path_segment(task_id)}/cancel")
    print_result(task, as_json, lambda _task: echo(f"{task_id} is cancelled"))


@app.command(
    epilog="A task that failed with submission_unknown may have been created and charged at its first attempt too.\n\n"
    "Examples:\n\n  ringback task retry 01998c2e-7d1b-7f00-8000-000000000000 --wait\n\n"
    "  ringback task retry --all-matching --status failed --created-after 24h\n\n"
    "Exit status with --all-matching: 0 another attempt of all has begun, 1 some were refused."
)
def retry(
    task_id: OptionalTaskId = None,
    all_matching: AllMatching = False,
    status: TaskStatusOption = None,
    model: ModelOption = None,
    task_type: TaskTypeOption = None,
    provider: ProviderOption = None,
    run: RunOption = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: MetadataOption = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Retry a task that failed or was cancelled, or all that match; their ids stay the same."""
    from receiver.cli.service import path_segment, service

    filters = _filters(status, model, task_type, provider, created_after, created_before, metadata, run)
    if task_id is None or all_matching:
        if wait:
            raise Failure(Status.USAGE, "--wait is for one task: the tasks that match are many")
        _change_matching("retry", task_id, all_matching, filters, dry_run, yes, as_json)
        return
    _only_for_all_matching(filters, dry_run, yes)
    with spinner("retrying", as_json), service() as client:
        task = client.call("POST", f"/api/v1/tasks/{path_segment(task_id)}/retry")
    _finish(task, wait, timeout, as_json)


def _filters(
    status: str | None,
    model: str | None,
    task_type: str | None,
    provider: str | None,
    created_after: str | None,
    created_before: str | None,
    metadata: list[str] | None,
    run: str | None = None,
) -> dict[str, Any]:
    """Return the filters that were given, by the API's names; those on metadata by their own, within `metadata`."""
    from receiver.cli.inputs import moment, pairs, without_none

    given = {
        "status": status,
        "model": model,
        "task_type": task_type,
        "provider": provider,
        "run_id": run,
        "created_after": moment(created_after),
        "created_before": moment(created_before),
        "metadata": pairs(metadata or (), "--metadata") or None,
    }
    return without_none(given)


def _as_query(filters: dict[str, Any]) -> dict[str, Any]:
    """Return filters as the query of a list names them."""
    members = filters.pop("metadata", {})
    return filters | {f"metadata[{key}]": value for key, value in members.items()}


def _change_matching(
    kind: str,
    task_id: str | None,
    all_matching: bool,
    filters: dict[str, Any],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from receiver.cli.bulk_action import change_matching

    if not all_matching or task_id is not None:
        raise Failure(Status.USAGE, "give the id of a task, or --all-matching, not both")
    change_matching(kind, filters, dry_run=dry_run, yes=yes, as_json=as_json)


def _only_for_all_matching(filters: dict[str, Any], dry_run: bool, yes: bool) -> None:
    if filters or dry_run or yes:
        raise Failure(Status.USAGE, "filters, --dry-run and --yes need --all-matching in the place of an id")


def _finish(task: Any, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Print a task that was created or retried; with `wait`, when it has ended."""
    from receiver.cli.show import print_task

    if wait:
        _wait([task["task_id"]], timeout, as_json)
    print_result(task, as_json, print_task)


def _wait(ids: list[str], timeout: float | None, as_json: bool) -> None:
    """Wait for tasks, print them, and end the command with the exit status that their states mean."""
    from receiver.cli.show import print_task
    from receiver.cli.waiting import end_status, has_ended, wait_for_tasks

    states = wait_for_tasks(ids, timeout, as_json=as_json)
    tasks = [state or {"task_id": task_id} for task_id, state in zip(ids, states, strict=True)]
    if as_json:
        print_json(tasks[0] if len(tasks) == 1 else {"object": "list", "data": tasks})
    else:
        for number, task in enumerate(tasks):
            if number:
                echo()
            print_task(task)
    status = end_status(states)
    if status is Status.TIMED_OUT:
        late = sum(not has_ended(state) for state in states)
        message = f"{late} of {len(states)} tasks have not ended after {timeout:g} s; wait again, or use `task get`"
        raise Failure(status, message)
    raise typer.Exit(status)
