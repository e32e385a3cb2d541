"""`ringback provider`: list providers, check accounts at them or the files that describe them, and `account`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.cli import provider_account
from receiver.cli.console import Json, print_page, print_table, spinner
from receiver.cli.failure import Failure, Status

app = typer.Typer(no_args_is_help=True, help="Providers, and the accounts at them.")
app.add_typer(provider_account.app, name="account")


@app.command("list")
def list_providers(as_json: Json = False) -> None:
    """List the providers, and the accounts that you may use."""
    from receiver.cli.service import service

    with spinner("loading", as_json), service() as client:
        page = client.call("GET", "/api/v1/providers")
    print_page(page, as_json, _print_table)


@app.command(
    epilog="Examples:\n\n  ringback provider check fal --account production\n\n"
    "  ringback provider check acme.toml\n\n"
    "  ringback provider check deploy/providers/*.toml --json | jq '.data[].faults'\n\n"
    "Exit status: 0 all is well, 1 the key is not accepted, a file has a fault or a case differs, 2 usage, "
    "3 the service is not reachable or does not allow it."
)
def check(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="PROVIDER|FILE...", help="A provider such as fal, or files such as acme.toml."),
    ],
    account: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_ID", help="At the provider; by default that of the environment."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a provider whether it accepts an account's key, or check files that describe providers.

    A provider is asked by the service, by a call that is free. Of files it is said what would be sent and how answers
    are read: the cases in `acme.cases.json` beside `acme.toml` are run here, and nothing is sent anywhere.
    """
    from receiver.cli.provider_file import check_files

    files = [Path(each) for each in targets if _is_file(each)]
    if files and (len(files) < len(targets) or account is not None):
        raise Failure(Status.USAGE, "give one provider, with --account or without, or files alone")
    if files:
        check_files(files, as_json=as_json)
    elif len(targets) > 1:
        raise Failure(Status.USAGE, "give one provider")
    else:
        provider_account.check_account(targets[0], account, as_json=as_json)


def _is_file(target: str) -> bool:
    return target.endswith(".toml") or Path(target).is_file()


def _print_table(providers: Sequence[Mapping[str, Any]]) -> None:
    print_table(("name", "webhooks", "cancels", "lists", "accounts"), [_row(each) for each in providers])


def _row(provider: Mapping[str, Any]) -> tuple[Any, ...]:
    can = provider.get("capabilities") or {}
    accounts = provider.get("accounts") or ()
    return (
        provider.get("name"),
        can.get("callback"),
        can.get("cancels"),
        "yes" if can.get("lists") or can.get("finds") else "no",
        ", ".join(str(each.get("name")) for each in accounts if each.get("credentials") or each.get("id")),
    )
