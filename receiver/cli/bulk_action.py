"""`ringback task cancel|retry|refresh --all-matching`: asks with the exact number, begins, and shows the progress."""

import sys
import uuid
from collections.abc import Mapping
from typing import Any

import typer

from receiver.cli.console import confirm, echo, print_fields, print_result, spinner
from receiver.cli.failure import Failure, Status
from receiver.cli.service import service
from receiver.cli.waiting import wait_for_bulk_action

_PARTICIPLE = {"cancel": "cancelled", "retry": "retried", "refresh": "refreshed"}


def change_matching(kind: str, filters: Mapping[str, Any], *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Cancel, retry or refresh (`kind`) the tasks that match; with `dry_run` only print how many those are.

    Without filters that are all tasks. Ends the command with status 1 if a task was refused.
    """
    path, body = f"/api/v1/tasks/{kind}", dict(filters) or {"all": True}
    with service() as client:
        with spinner("counting", as_json):
            counted = client.call("POST", path, body={**body, "dry_run": True})
        count = counted["matched"]
        if dry_run or not count:
            print_result(counted, as_json, lambda _: echo(f"{count} tasks can be {_PARTICIPLE[kind]}"))
            return
        if not yes:
            _ask(kind, count, as_json)
        with spinner("requesting", as_json):
            headers = {"Idempotency-Key": str(uuid.uuid4())}
            action = client.call("POST", path, body=body, headers=headers)
    action = wait_for_bulk_action(action, as_json=as_json)
    print_result(action, as_json, _print)
    succeeded = action["status"] == "done" and not action["failed"]
    raise typer.Exit(Status.DONE if succeeded else Status.TASK_FAILED)


def _ask(kind: str, count: int, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        message = f"{count} tasks would be {_PARTICIPLE[kind]}; add --yes to do that without being asked"
        raise Failure(Status.USAGE, message)
    if not confirm(f"{count} tasks are to be {_PARTICIPLE[kind]}. Go on?"):
        raise Failure(Status.TASK_FAILED, "nothing was changed")


def _print(action: Mapping[str, Any]) -> None:
    codes = action.get("failed_by_code") or {}
    print_fields(
        [
            ("bulk action", action.get("id")),
            ("status", action.get("status")),
            ("matched", action.get("matched")),
            (_PARTICIPLE.get(str(action.get("kind")), "done"), action.get("done")),
            ("refused", action.get("failed")),
            ("why", ", ".join(f"{count} {code}" for code, count in codes.items())),
        ]
    )
