"""`ringback key rotate-master`: goes through all that is stored encrypted, and prints what still needs which key."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import typer

from receiver.cli.console import echo, print_result, print_table
from receiver.cli.failure import Status
from receiver.cli.progress import rows_progress
from receiver.cli.service import ServiceClient, service

_PATH = "/api/v1/master-keys"


def rotate(*, status: bool, as_json: bool) -> None:
    """Rotate, unless only the status is wanted; then print which key what is stored needs.

    The exit status is 1 if an earlier key, or one that is missing, is still needed for what is stored.
    """
    with service() as client:
        rows = client.call("GET", _PATH)["rows"]
        if not status:
            _go_through(client, rows, "encrypting", as_json, dry_run=False)
        values, unreadable = _go_through(client, rows, "counting", as_json, dry_run=True)
        known = client.call("GET", _PATH)
    keys = [{**key, "values": values.pop(key["fingerprint"], 0)} for key in known["keys"]]
    found = {"keys": keys, "unreadable": unreadable, "tasks": known["tasks"]}
    print_result(found, as_json, _print)
    if not status and (unreadable or _earlier(found)):
        raise typer.Exit(Status.TASK_FAILED)


def _go_through(
    client: ServiceClient, rows: int, description: str, as_json: bool, *, dry_run: bool
) -> tuple[Counter[str], int]:
    """Handle all pages; return how many values were encrypted with which key, and how many cannot be read."""
    values: Counter[str] = Counter()
    unreadable, cursor = 0, None
    with rows_progress(description, rows, as_json) as advance:
        while True:
            body = {"dry_run": dry_run} if cursor is None else {"dry_run": dry_run, "cursor": cursor}
            page = client.call("POST", f"{_PATH}/rotate", body=body)
            values.update({key["fingerprint"]: key["values"] for key in page["keys"]})
            unreadable += page["unreadable"]
            advance(page["rows"])
            if (cursor := page["next_cursor"]) is None:
                return values, unreadable


def _earlier(found: Mapping[str, Any]) -> int:
    """Return how many values are encrypted with a key that is not the newest."""
    return sum(key["values"] for key in found["keys"] if not key["is_newest"])


def _print(found: Mapping[str, Any]) -> None:
    rows = [(key["fingerprint"], _role(key), key["newest_since"], key["values"]) for key in found["keys"]]
    print_table(("master key", "is", "newest since", "values"), rows)
    echo()
    tasks, earlier = found["tasks"], _earlier(found)
    if earlier:
        echo(f"{earlier} values still need an earlier key: run `ringback key rotate-master`.")
    if found["unreadable"]:
        echo(
            f"{found['unreadable']} values cannot be read with any key: put the missing one back, or give these "
            "webhooks new secrets and headers."
        )
    if tasks["count"]:
        echo(
            f"The webhooks of {tasks['count']} tasks under way are verified by an earlier key. Keep it until these "
            f"tasks have ended, at the latest about {tasks['until']} unless the provider still works on them; without "
            "it, polling alone brings their results."
        )
    if not (earlier or tasks["count"] or found["unreadable"]) and len(found["keys"]) > 1:
        echo("Nothing needs an earlier key any more: remove all but the newest from RINGBACK_SECRET_KEY, and restart.")


def _role(key: Mapping[str, Any]) -> str:
    if not key["is_in_settings"]:
        return "missing"
    return "newest" if key["is_newest"] else "earlier"
