"""`ringback webhook`: URLs that receive events, their secrets, and sending events again."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, echo, print_fields, print_page, print_result, print_table, spinner
from receiver.cli.failure import Failure, Status
from receiver.cli.options import SHOWN_TO_OTHERS, TIME_HELP, EventTypes, SecretFile, Timeout, Wait

app = typer.Typer(no_args_is_help=True, help="Register URLs that receive events, test them, send events again.")

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="As shown by `ringback webhook list`.")]
Since = Annotated[str, typer.Option(metavar="TIME", help=TIME_HELP)]


class FormatChoice(StrEnum):
    """The formats of the requests that a webhook receives."""

    # The same as `models.states.DeliveryFormat`, which is not imported: importing `models` would slow every command
    # down.
    STANDARD = "standard"
    PI = "pi"
    PIAPI = "piapi"
    CLOUDEVENTS = "cloudevents"
    REPLICATE = "replicate"


@app.command(
    epilog="Examples:\n\n"
    "  ringback webhook add https://example.com/hooks\n\n"
    "  ringback webhook add https://example.com/hooks --format pi --secret-file secret.txt --event task.completed"
)
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="An https:// URL that the service can reach.")],
    secret: Annotated[
        str | None,
        typer.Option(
            help=f"The secret that signs the requests; by default one is made and printed once. {SHOWN_TO_OTHERS}"
        ),
    ] = None,
    secret_file: SecretFile = None,
    form: Annotated[FormatChoice, typer.Option("--format", help="The format of the requests.")] = FormatChoice.STANDARD,
    event: EventTypes = None,
    description: Annotated[str | None, typer.Option(help="A note, shown with the webhook.")] = None,
    as_json: Json = False,
) -> None:
    """Register a URL that receives events."""
    from receiver.cli.inputs import secret_of, without_none
    from receiver.cli.service import service

    fields = {
        "endpoint_url": url,
        "secret": secret_of(secret, secret_file, "--secret"),
        "format": form,
        "event_types": event or None,
        "description": description,
    }
    with spinner("registering", as_json), service() as client:
        webhook = client.call("POST", "/api/v1/webhooks", body=without_none(fields))
    print_result(webhook, as_json, _print)


@app.command("list")
def list_webhooks(as_json: Json = False) -> None:
    """List the registered URLs."""
    from receiver.cli.service import service

    with spinner("loading", as_json), service() as client:
        page = client.collect("/api/v1/webhooks")
    print_page(page, as_json, _print_table)


@app.command(epilog="Pending deliveries to it are cancelled.")
def remove(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Remove a URL: it receives no more events."""
    from receiver.cli.service import path_segment, service

    with spinner("removing", as_json), service() as client:
        removed = client.call("DELETE", f"/api/v1/webhooks/{path_segment(webhook_id)}")
    print_result(removed, as_json, lambda _removed: echo(f"{webhook_id} is removed"))


@app.command(
    "test",
    epilog="Exit status: 0 if it was accepted (2xx), 1 if not. The ping is not stored, and not sent again.",
)
def send_ping(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send a signed `ping` to a URL, and print the response."""
    from receiver.cli.service import path_segment, service

    with spinner("sending a ping", as_json), service() as client:
        result = client.call("POST", f"/api/v1/webhooks/{path_segment(webhook_id)}/test")
    print_result(result, as_json, _print_ping)
    raise typer.Exit(Status.DONE if result.get("delivered") else Status.TASK_FAILED)


@app.command(
    epilog="Each event is sent with its original id, even if it was delivered before. Without --event: all events "
    "that the webhook is registered for.\n\n"
    "Exit status with --wait: 0 all delivered, 1 one was given up or cancelled, 4 not all have ended in time.\n\n"
    "Examples:\n\n"
    "  ringback webhook replay $ID --since 24h --wait\n\n"
    "  ringback webhook replay $ID --since 2025-11-01T00:00:00Z --until 2025-11-02T00:00:00Z --event task.failed"
)
def replay(
    webhook_id: WebhookId,
    since: Since,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Like --since; now by default.")] = None,
    event: EventTypes = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Send all matching events since a time again."""
    from receiver.cli.inputs import moment

    fields = {"since": moment(since), "until": moment(until), "event_types": event or None}
    _send_again(webhook_id, "replay", fields, wait, timeout, as_json)


@app.command(
    epilog="Exit status with --wait: as for `replay`.\n\nExample: ringback webhook recover $ID --since 24h --wait"
)
def recover(
    webhook_id: WebhookId, since: Since, wait: Wait = False, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Send the deliveries that were given up since a time again."""
    from receiver.cli.inputs import moment

    _send_again(webhook_id, "recover", {"since": moment(since)}, wait, timeout, as_json)


@app.command(
    epilog="During the overlap each request is signed with both secrets, so that the receiver can be changed to the "
    "new one.\n\nExample: ringback webhook rotate $ID --overlap 24h"
)
def rotate(
    webhook_id: WebhookId,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old secret signs too: 0 to 7d, such as 24h.")
    ] = "24h",
    secret: Annotated[
        str | None, typer.Option(help=f"The new secret; by default one is made and printed once. {SHOWN_TO_OTHERS}")
    ] = None,
    secret_file: SecretFile = None,
    as_json: Json = False,
) -> None:
    """Replace a URL's secret by a new one."""
    from receiver.cli.inputs import seconds, secret_of, without_none
    from receiver.cli.service import path_segment, service

    new = secret_of(secret, secret_file, "--secret")
    body = without_none({"overlap_seconds": int(seconds(overlap, "--overlap")), "secret": new})
    with spinner("changing the secret", as_json), service() as client:
        webhook = client.call("POST", f"/api/v1/webhooks/{path_segment(webhook_id)}/rotate-secret", body=body)
    print_result(webhook, as_json, _print)


def _send_again(
    webhook_id: str, action: str, fields: dict[str, Any], wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Start a replay and print it; with `wait`, when it has ended, with the exit status that this means."""
    from receiver.cli.inputs import without_none
    from receiver.cli.service import path_segment, service
    from receiver.cli.show import print_replay
    from receiver.cli.waiting import replay_end_status, replay_has_ended, wait_for_replay

    path = f"/api/v1/webhooks/{path_segment(webhook_id)}"
    with spinner("requesting", as_json), service() as client:
        replay = client.call("POST", f"{path}/{action}", body=without_none(fields))
    if wait:
        replay = wait_for_replay(path, replay, timeout, as_json=as_json)
    print_result(replay, as_json, print_replay)
    if not wait:
        return
    if not replay_has_ended(replay):
        message = f"the replay has not ended after {timeout:g} s, and {replay['pending']} deliveries are pending"
        raise Failure(Status.TIMED_OUT, f"{message}; see `delivery list --webhook {webhook_id} --status pending`")
    raise typer.Exit(replay_end_status(replay))


def _print(webhook: dict[str, Any]) -> None:
    print_fields(
        [
            ("webhook", webhook.get("id")),
            ("url", webhook.get("endpoint_url")),
            ("format", webhook.get("format")),
            ("events", " ".join(webhook.get("event_types") or ())),
            ("description", webhook.get("description")),
            ("secret", webhook.get("secret")),
        ]
    )
    if webhook.get("secret"):
        echo("Keep the secret: it is not shown again.", err=True)


def _print_table(webhooks: Sequence[dict[str, Any]]) -> None:
    rows = [
        (
            webhook.get("id"),
            webhook.get("endpoint_url"),
            webhook.get("format"),
            " ".join(webhook.get("event_types") or ()),
            "yes" if webhook.get("is_active") else "no",
            age(webhook.get("created_at")),
        )
        for webhook in webhooks
    ]
    print_table(("id", "url", "format", "events", "active", "age"), rows)


def _print_ping(result: dict[str, Any]) -> None:
    names = ("delivered", "status_code", "error", "duration_ms", "response")
    fields = {**result, "delivered": "yes" if result.get("delivered") else "no"}
    print_fields((name.replace("_", " "), fields.get(name)) for name in names)
