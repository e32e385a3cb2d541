"""`ringback webhook`: who is told of what."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, print_fields, print_json, print_table, spinner
from receiver.cli.failure import Failure, Status

app = typer.Typer(no_args_is_help=True, help="Register URLs that are told when tasks end.")

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="As `ringback webhook list` shows it.")]
Since = Annotated[str, typer.Option(metavar="TIME", help="ISO 8601, unix seconds, or how long ago: 30m, 24h, 7d.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until nothing of it is on its way.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="Stop waiting after so long; exit status 4.")
]


class FormatChoice(StrEnum):
    """The forms in which a subscriber can be told."""

    STANDARD = "standard"
    PI = "pi"
    PIAPI = "piapi"


@app.command(
    epilog="Examples:\n\n"
    "  ringback webhook add https://example.com/hooks\n\n"
    "  ringback webhook add https://example.com/hooks --format pi --secret $SECRET --event task.completed"
)
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="An https:// URL that can be reached from the service.")],
    secret: Annotated[
        str | None, typer.Option(help="What the notices are signed with; without it one is made and printed once.")
    ] = None,
    form: Annotated[FormatChoice, typer.Option("--format", help="The form of the notices.")] = FormatChoice.STANDARD,
    event: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Such as task.completed; may be repeated.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="A word for whoever reads the list.")] = None,
    as_json: Json = False,
) -> None:
    """Register a URL."""
    from receiver.cli.service import service

    given = {
        "endpoint_url": url,
        "secret": secret,
        "format": form.value,
        "event_types": event or None,
        "description": description,
    }
    body = {name: value for name, value in given.items() if value is not None}
    with spinner("registering", as_json), service() as client:
        webhook = client.call("POST", "/api/v1/webhooks", body=body)
    if as_json:
        print_json(webhook)
        return
    _print(webhook)
    if webhook.get("secret"):
        typer.echo("Keep the secret: it is not shown again.", err=True)


@app.command("list")
def list_webhooks(as_json: Json = False) -> None:
    """List the registered URLs."""
    from receiver.cli.service import service

    with spinner("looking", as_json), service() as client:
        page = client.collect("/api/v1/webhooks")
    if as_json:
        print_json(page)
        return
    rows = [
        (
            webhook.get("id"),
            webhook.get("endpoint_url"),
            webhook.get("format"),
            " ".join(webhook.get("event_types") or ()),
            "yes" if webhook.get("is_active") else "no",
            age(webhook.get("created_at")),
        )
        for webhook in page["data"]
    ]
    print_table(("id", "url", "format", "events", "active", "age"), rows)


@app.command(epilog="What is on its way to it is not sent any more.")
def remove(
    webhook_id: WebhookId,
    as_json: Json = False,
) -> None:
    """Remove a URL: it is told no more."""
    from receiver.cli.service import segment, service

    with spinner("removing", as_json), service() as client:
        gone = client.call("DELETE", f"/api/v1/webhooks/{segment(webhook_id)}")
    if as_json:
        print_json(gone)
    else:
        typer.echo(f"{webhook_id} is removed")


@app.command(
    "test", epilog="Exit status: 0 if it was taken (2xx), 1 if not. Nothing is kept of it, and it is not tried again."
)
def send_ping(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send a signed `ping` to a URL, and show what it answers."""
    from receiver.cli.service import segment, service

    with spinner("sending a ping", as_json), service() as client:
        result = client.call("POST", f"/api/v1/webhooks/{segment(webhook_id)}/test")
    if as_json:
        print_json(result)
    else:
        names = ("delivered", "status_code", "error", "duration_ms", "response")
        shown = {**result, "delivered": "yes" if result.get("delivered") else "no"}
        print_fields((name.replace("_", " "), shown.get(name)) for name in names)
    raise typer.Exit(Status.DONE if result.get("delivered") else Status.TASK_FAILED)


@app.command(
    epilog="Delivered or not, each event is sent with the id that it always had. Without --event: all that the "
    "webhook listens to.\n\n"
    "Exit status with --wait: 0 all delivered, 1 one was given up or cancelled, 4 not all over in time.\n\n"
    "Examples:\n\n"
    "  ringback webhook replay $ID --since 24h --wait\n\n"
    "  ringback webhook replay $ID --since 2025-11-01T00:00:00Z --until 2025-11-02T00:00:00Z --event task.failed"
)
def replay(
    webhook_id: WebhookId,
    since: Since,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="As --since; now if it is left out.")] = None,
    event: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Such as task.completed; may be repeated.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Send everything that matched since a moment again."""
    from receiver.cli.inputs import moment

    given = {"since": moment(since), "until": moment(until) if until else None, "event_types": event or None}
    body = {name: value for name, value in given.items() if value is not None}
    _send_again(webhook_id, "replay", body, timeout if wait else 0, as_json)


@app.command(
    epilog="Exit status with --wait: as of `replay`.\n\nExample: ringback webhook recover $ID --since 24h --wait"
)
def recover(
    webhook_id: WebhookId, since: Since, wait: Wait = False, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Send again what was given up since a moment."""
    from receiver.cli.inputs import moment

    _send_again(webhook_id, "recover", {"since": moment(since)}, timeout if wait else 0, as_json)


@app.command(
    epilog="The old secret signs beside the new one for the overlap, so that the receiver can change over meanwhile."
    "\n\nExample: ringback webhook rotate $ID --overlap 24h"
)
def rotate(
    webhook_id: WebhookId,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old secret signs too: 0 to 7d, such as 24h.")
    ] = "24h",
    secret: Annotated[str | None, typer.Option(help="The new secret; without it one is made and printed once.")] = None,
    as_json: Json = False,
) -> None:
    """Change a URL's secret."""
    from receiver.cli.inputs import seconds
    from receiver.cli.service import segment, service

    body: dict[str, Any] = {"overlap_seconds": int(seconds(overlap, "--overlap"))}
    if secret is not None:
        body["secret"] = secret
    with spinner("changing the secret", as_json), service() as client:
        webhook = client.call("POST", f"/api/v1/webhooks/{segment(webhook_id)}/rotate-secret", body=body)
    if as_json:
        print_json(webhook)
        return
    _print(webhook)
    if webhook.get("secret"):
        typer.echo("Keep the secret: it is not shown again.", err=True)


def _send_again(webhook_id: str, what: str, body: dict[str, Any], longest: float | None, as_json: bool) -> None:
    """Ask for it; wait `longest` seconds for its end (None: however long, 0: not at all), and print it."""
    from receiver.cli.replaying import follow, is_over, print_replay, status_of
    from receiver.cli.service import segment, service

    path = f"/api/v1/webhooks/{segment(webhook_id)}"
    with service() as client:
        with spinner("asking", as_json):
            asked = client.call("POST", f"{path}/{what}", body=body)
        found = asked if longest == 0 else follow(client, f"{path}/replays/{asked['id']}", asked, longest, as_json)
    if as_json:
        print_json(found)
    else:
        print_replay(found)
    if longest == 0:
        return
    if not is_over(found):
        raise Failure(Status.TIMED_OUT, f"{found['pending']} are still on their way after {longest:g} s")
    raise typer.Exit(status_of(found))


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
