"""`ringback key`: create, list, revoke, and rotate the master key."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, echo, print_fields, print_page, print_result, print_table, spinner

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys. This needs a key with the scope admin.")


class ScopeChoice(StrEnum):
    """What a key allows; each scope includes the ones before it."""

    # The same as `models.states.Scope`, which is not imported: importing `models` would slow every command down.
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.command(
    epilog="Examples:\n\n"
    "  ringback key create --name dashboard --scope read\n\n"
    "  ringback key create --name contractor --expires 90d"
)
def create(
    name: Annotated[str, typer.Option(help="Who or what will use it.")],
    scope: Annotated[
        ScopeChoice, typer.Option(help="What it allows; each scope includes the ones before it.")
    ] = ScopeChoice.WRITE,
    rate_limit: Annotated[
        float | None, typer.Option(help="Requests a second, all replicas together.", metavar="N")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it stops working: in 90d, 24h, or at a time in ISO 8601.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a key; it is printed once."""
    from receiver.cli.inputs import later_moment, without_none
    from receiver.cli.service import service

    with spinner("creating a key", as_json), service() as client:
        body = {"name": name, "scope": scope, "rate_limit": rate_limit, "expires_at": later_moment(expires)}
        key = client.call("POST", "/api/v1/keys", body=without_none(body))
    print_result(key, as_json, _print)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys, each with its first characters."""
    from receiver.cli.service import service

    with spinner("loading", as_json), service() as client:
        page = client.collect("/api/v1/keys")
    print_page(page, as_json, _print_table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As shown by `ringback key list`.")],
    as_json: Json = False,
) -> None:
    """Revoke a key: requests with it are refused from now on."""
    from receiver.cli.service import path_segment, service

    with spinner("revoking", as_json), service() as client:
        revoked = client.call("DELETE", f"/api/v1/keys/{path_segment(key_id)}")
    print_result(revoked, as_json, lambda _revoked: echo(f"{key_id} is revoked"))


@app.command(
    "rotate-master",
    epilog="Examples:\n\n  ringback key rotate-master --status\n\n  ringback key rotate-master",
)
def rotate_master(
    status: Annotated[
        bool, typer.Option("--status", help="Change nothing: only count what is stored by which key.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Encrypt everything that is stored with the newest master key, so that earlier ones can be removed.

    The service goes on working meanwhile. It can be interrupted and run again. At the end it prints what still needs
    an earlier key. This needs an admin key of the organization `default`.
    """
    from receiver.cli.master_keys import rotate

    rotate(status=status, as_json=as_json)


def _print(key: Mapping[str, Any]) -> None:
    names = ("id", "name", "scope", "rate_limit", "expires_at", "key")
    print_fields([(name.replace("_", " "), key.get(name)) for name in names])
    echo("Keep the key: it is not shown again.", err=True)


def _print_table(keys: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            key.get("id"),
            key.get("name"),
            key.get("scope"),
            key.get("hint"),
            key.get("rate_limit"),
            key.get("expires_at"),
            age(key.get("last_used_at")),
            age(key.get("created_at")),
        )
        for key in keys
    ]
    print_table(("id", "name", "scope", "begins with", "a second", "expires", "last used", "age"), rows)
