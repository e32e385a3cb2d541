"""`ringback webhook`: who is told of what."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, print_fields, print_json, print_table, spinner

app = typer.Typer(no_args_is_help=True, help="Register URLs that are told when tasks end.")


class Format(StrEnum):
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
    form: Annotated[Format, typer.Option("--format", help="The form of the notices.")] = Format.STANDARD,
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
    webhook_id: Annotated[str, typer.Argument(metavar="ID", help="As `ringback webhook list` shows it.")],
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
