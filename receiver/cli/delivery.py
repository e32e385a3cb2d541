"""`ringback delivery`: list, get, explain, retry."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, echo, print_fields, print_page, print_result, print_table, spinner
from receiver.cli.options import CreatedAfter, CreatedBefore, Limit, ListAll

app = typer.Typer(no_args_is_help=True, help="List deliveries, show their attempts, send them again.")

DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="As shown by `ringback delivery list`.")]


class DeliveryStatusChoice(StrEnum):
    """The states by which a list can be filtered."""

    # The same as `models.states.DeliveryStatus`, which is not imported: importing `models` would slow every command
    # down.
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


@app.command(
    "list",
    epilog="`dead` deliveries were given up after their last attempt.\n\n"
    "Examples:\n\n"
    "  ringback delivery list --status dead --webhook $ID\n\n"
    "  ringback delivery list --task $TASK_ID --all --json",
)
def list_deliveries(
    status: Annotated[DeliveryStatusChoice | None, typer.Option(help="Only deliveries in this state.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="ID", help="Only deliveries to this webhook.")] = None,
    event: Annotated[str | None, typer.Option(metavar="ID", help="Only deliveries of this event.")] = None,
    task: Annotated[str | None, typer.Option(metavar="ID", help="Only deliveries of this task's events.")] = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    limit: Limit = 20,
    list_all: ListAll = False,
    as_json: Json = False,
) -> None:
    """List deliveries, newest first."""
    from receiver.cli.inputs import moment
    from receiver.cli.service import service

    filters = {
        "status": status,
        "webhook_id": webhook,
        "event_id": event,
        "task_id": task,
        "created_after": moment(created_after),
        "created_before": moment(created_before),
    }
    with spinner("loading", as_json), service() as client:
        page = client.collect("/api/v1/deliveries", filters, None if list_all else limit)
    print_page(page, as_json, _print_table)


@app.command(epilog="Signatures, secrets and the values of your own headers are not shown.")
def get(delivery_id: DeliveryId, as_json: Json = False) -> None:
    """Print a delivery with its request and every attempt."""
    from receiver.cli.service import path_segment, service

    with spinner("loading", as_json), service() as client:
        delivery = client.call("GET", f"/api/v1/deliveries/{path_segment(delivery_id)}")
    print_result(delivery, as_json, _print)


@app.command(epilog="It is made of the stored state at this moment: nothing is asked of the provider or the endpoint.")
def explain(delivery_id: DeliveryId, as_json: Json = False) -> None:
    """Print why a delivery is in its state, what happens next and when, and what that waits for."""
    from receiver.cli.service import path_segment, service
    from receiver.cli.show import print_explanation

    with spinner("loading", as_json), service() as client:
        explanation = client.call("GET", f"/api/v1/deliveries/{path_segment(delivery_id)}/explain")
    print_result(explanation, as_json, print_explanation)


@app.command(epilog="A delivery that succeeded can be sent again too. Its retry schedule starts from the beginning.")
def retry(delivery_id: DeliveryId, as_json: Json = False) -> None:
    """Send a delivery again, now."""
    from receiver.cli.service import path_segment, service

    with spinner("requesting", as_json), service() as client:
        delivery = client.call("POST", f"/api/v1/deliveries/{path_segment(delivery_id)}/retry")
    print_result(delivery, as_json, lambda _delivery: echo(f"{delivery_id} is pending again"))


def _print_table(deliveries: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            delivery["id"],
            delivery["event_type"],
            delivery["endpoint_url"],
            delivery["status"],
            delivery["attempt_count"],
            _response(delivery["last_status_code"], delivery["last_error"]),
            age(delivery["created_at"]),
        )
        for delivery in deliveries
    ]
    print_table(("id", "event", "url", "status", "attempts", "last response", "age"), rows)


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
            ("attempts", delivery["attempt_count"]),
            ("next attempt", delivery["next_attempt_at"]),
            ("created", delivery["created_at"]),
            ("settled", delivery["settled_at"]),
            ("headers", "\n".join(f"{name}: {value}" for name, value in (request.get("headers") or {}).items())),
        ]
    )
    if delivery["attempts"]:
        echo()
        print_table(("attempt", "started", "ms", "response", "body"), map(_attempt_row, delivery["attempts"]))


def _attempt_row(attempt: Mapping[str, Any]) -> tuple[Any, ...]:
    response = _response(attempt["status_code"], attempt["error"])
    return (attempt["attempt"], attempt["started_at"], attempt["duration_ms"], response, attempt["response"])


def _response(status_code: int | None, error: str | None) -> str | None:
    return " ".join(str(part) for part in (status_code, error) if part is not None) or None
