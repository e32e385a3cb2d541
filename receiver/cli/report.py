"""`ringback report`: proof that nothing is missing, or what is."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, echo, print_fields, print_result, print_table, spinner
from receiver.cli.failure import Status
from receiver.cli.options import TIME_HELP

ApiReport = Mapping[str, Any]
"""A report as the API returns it."""

_COUNTS = ("events", "delivered", "waiting", "dead", "cancelled", "filtered", "unknown", "switched_off", "missing")
_NOT_GAPS = {
    "dead": "given up after every attempt; `ringback webhook recover` sends them again",
    "overdue_tasks": "open, and due for more than 15 minutes: is the service running, and fast enough?",
    "overdue_deliveries": "waiting, and due for more than 15 minutes: is the service running, and fast enough?",
}
"""What is listed although it adds up, and what it means."""


def report(since: Annotated[str, typer.Option(metavar="TIME", help=TIME_HELP)] = "24h", as_json: Json = False) -> None:
    """Print what was created, ended and delivered since a time, recomputed from the rows, and what is missing."""
    from receiver.cli.inputs import moment
    from receiver.cli.service import service

    with spinner("reading", as_json), service() as client:
        found = client.call("GET", "/api/v1/report", params={"since": moment(since)})
    print_result(found, as_json, _print)
    raise typer.Exit(Status.DONE if found["adds_up"] else Status.TASK_FAILED)


def _print(found: ApiReport) -> None:
    print_fields(_summary(found))
    echo()
    print_table(("webhook", "url", "state", *(name.replace("_", " ") for name in _COUNTS)), _accounts(found))
    for kind in found["gaps"]["kinds"]:
        _print_listing(kind["kind"].replace("_", " "), kind["meaning"], kind)
    for name, meaning in _NOT_GAPS.items():
        _print_listing(name.replace("_", " "), meaning, found[name])


def _summary(found: ApiReport) -> Iterator[tuple[str, Any]]:
    yield "since", found["since"] + (" (older rows are purged)" if found["is_cut"] else "")
    yield "until", found["until"]
    for name in ("tasks", "runs"):
        made = found[name]
        states = ", ".join(f"{count} {status}" for status, count in made["by_status"].items())
        yield (
            name,
            f"{made['created']} created = {made['ended']} ended + {made['open']} open"
            + (f" ({states})" if states else ""),
        )
    yield "events", found["events"]["count"]
    yield "gaps", str(found["gaps"]["count"])
    yield "result", "everything adds up" if found["adds_up"] else "it does not add up"


def _accounts(found: ApiReport) -> Iterator[tuple[Any, ...]]:
    deliveries = found["deliveries"]
    for webhook in deliveries["webhooks"]["shown"]:
        yield (webhook["webhook_id"], webhook["endpoint_url"], webhook["state"], *_counts(webhook))
    yield ("callbacks of clients", None, None, *_counts(deliveries["callbacks"]))
    yield ("all", None, None, *_counts(deliveries["total"]))


def _counts(account: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(account[name] for name in _COUNTS)


def _print_listing(name: str, meaning: str, listing: Mapping[str, Any]) -> None:
    """Print what was found of one kind, as far as it is listed; nothing if there is none."""
    shown = listing["shown"]
    if not listing["count"]:
        return
    more = "" if len(shown) == listing["count"] else f", of which {len(shown)} are listed"
    echo()
    echo(f"{name}: {listing['count']}{more} ({meaning})")
    names = [each for each in ("delivery_id", "event_id", "task_id", "run_id") if shown and each in shown[0]]
    names += [each for each in ("status", "event_type", "webhook_id") if shown and each in shown[0]]
    print_table(names, ([item[each] for each in names] for item in shown))
