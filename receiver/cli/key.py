"""`ringback key`: the API keys."""

from enum import StrEnum
from typing import Annotated

import typer

from receiver.cli.console import Json, age, print_fields, print_json, print_table, spinner

app = typer.Typer(no_args_is_help=True, help="Make and revoke API keys. This needs a key of scope admin.")


class ScopeChoice(StrEnum):
    """What a key may do; each holds the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.command(epilog="Example: ringback key create --name dashboard --scope read")
def create(
    name: Annotated[str, typer.Option(help="Who will use it.")],
    scope: Annotated[ScopeChoice, typer.Option(help="What it may do.")] = ScopeChoice.WRITE,
    rate_limit: Annotated[
        float | None, typer.Option(help="Requests a second, to each process of the service.", metavar="N")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key; it is printed once."""
    from receiver.cli.service import service

    with spinner("making a key", as_json), service() as client:
        body = {"name": name, "scope": scope.value, "rate_limit": rate_limit}
        key = client.call("POST", "/api/v1/keys", body=body)
    if as_json:
        print_json(key)
        return
    shown = ("id", "name", "scope", "rate_limit", "key")
    print_fields([(name.replace("_", " "), key.get(name)) for name in shown])
    typer.echo("Keep the key: it is not shown again.", err=True)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys, by their first characters."""
    from receiver.cli.service import service

    with spinner("looking", as_json), service() as client:
        page = client.collect("/api/v1/keys")
    if as_json:
        print_json(page)
        return
    rows = [
        (
            key.get("id"),
            key.get("name"),
            key.get("scope"),
            key.get("hint"),
            key.get("rate_limit"),
            age(key.get("created_at")),
        )
        for key in page["data"]
    ]
    print_table(("id", "name", "scope", "begins with", "a second", "age"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `ringback key list` shows it.")],
    as_json: Json = False,
) -> None:
    """Revoke a key: it opens nothing any more, at once."""
    from receiver.cli.service import segment, service

    with spinner("revoking", as_json), service() as client:
        gone = client.call("DELETE", f"/api/v1/keys/{segment(key_id)}")
    if as_json:
        print_json(gone)
    else:
        typer.echo(f"{key_id} is revoked")
