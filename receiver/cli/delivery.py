"""`ringback delivery`: what was sent to whom, and sending it again."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, print_fields, print_json, print_table, spinner

app = typer.Typer(no_args_is_help=True, help="Look at what was sent to whom, and send it again.")

DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="As `ringback delivery list` shows it.")]


class DeliveryStatusChoice(StrEnum):
    """The states that a list can be narrowed to."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


@app.command(
    "list",
    epilog="`dead` is what was given up after the last attempt.\n\n"
    "Examples:\n\n"
    "  ringback delivery list --status dead --webhook $ID\n\n"
    "  ringback delivery list --task $TASK_ID --all --json",
)
def list_deliveries(
    status: Annotated[DeliveryStatusChoice | None, typer.Option(help="Only those in this state.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="ID", help="Only to this webhook.")] = None,
    event: Annotated[str | None, typer.Option(metavar="ID", help="Only of this event.")] = None,
    task: Annotated[str | None, typer.Option(metavar="ID", help="Only of this task.")] = None,
    created_after: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601, unix seconds, or 24h.")] = None,
    created_before: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601, unix seconds, or 24h.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    as_json: Json = False,
) -> None:
    """List deliveries, the newest first."""
    from receiver.cli.inputs import moment
    from receiver.cli.service import service

    filters = {
        "status": status.value if status else None,
        "webhook_id": webhook,
        "event_id": event,
        "task_id": task,
        "created_after": moment(created_after) if created_after else None,
        "created_before": moment(created_before) if created_before else None,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    with spinner("looking", as_json), service() as client:
        page = client.collect("/api/v1/deliveries", given, None if everything else limit)
    if as_json:
        print_json(page)
        return
    print_table(("id", "event", "url", "status", "attempts", "last answer", "age"), map(_row, page["data"]))
    if page["has_more"]:
        typer.echo("There are more: --limit N, or --all.", err=True)


@app.command(epilog="Signatures, secrets and your own headers' values are not shown.")
def get(delivery_id: DeliveryId, as_json: Json = False) -> None:
    """Print a delivery with its request and every attempt."""
    from receiver.cli.service import segment, service

    with spinner("looking", as_json), service() as client:
        delivery = client.call("GET", f"/api/v1/deliveries/{segment(delivery_id)}")
    if as_json:
        print_json(delivery)
        return
    _print(delivery)
    if delivery["attempt_history"]:
        typer.echo()
        print_table(("attempt", "started", "ms", "answer", "body"), map(_attempt, delivery["attempt_history"]))


@app.command(epilog="What was delivered can be sent again, too. Its schedule of attempts begins anew.")
def retry(delivery_id: DeliveryId, as_json: Json = False) -> None:
    """Send a delivery again, now."""
    from receiver.cli.service import segment, service

    with spinner("sending", as_json), service() as client:
        delivery = client.call("POST", f"/api/v1/deliveries/{segment(delivery_id)}/retry")
    if as_json:
        print_json(delivery)
    else:
        typer.echo(f"{delivery_id} is on its way again")


def _row(delivery: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        delivery["id"],
        delivery["event_type"],
        delivery["endpoint_url"],
        delivery["status"],
        delivery["attempts"],
        _answer(delivery["last_status_code"], delivery["last_error"]),
        age(delivery["created_at"]),
    )


def _attempt(attempt: Mapping[str, Any]) -> tuple[Any, ...]:
    answer = _answer(attempt["status_code"], attempt["error"])
    return (attempt["number"], attempt["started_at"], attempt["duration_ms"], answer, attempt["response"])


def _answer(status_code: int | None, error: str | None) -> str | None:
    return " ".join(str(part) for part in (status_code, error) if part is not None) or None


def _print(delivery: Mapping[str, Any]) -> None:
    request = delivery.get("request") or {}
    print_fields(
        [
            ("delivery", delivery["id"]),
            ("event", f"{delivery['event_type']} {delivery['event_id']}"),
            ("task", delivery["task_id"]),
            ("webhook", delivery["webhook_id"]),
            ("url", delivery["endpoint_url"]),
            ("status", delivery["status"]),
            ("attempts", delivery["attempts"]),
            ("next attempt", delivery["next_attempt_at"]),
            ("created", delivery["created_at"]),
            ("settled", delivery["settled_at"]),
            ("headers", "\n".join(f"{name}: {value}" for name, value in (request.get("headers") or {}).items())),
        ]
    )
