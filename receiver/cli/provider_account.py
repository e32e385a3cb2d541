"""`ringback provider account`: list, add, rotate and remove accounts at providers; `check_account` asks a provider."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, echo, print_fields, print_page, print_result, print_table, spinner
from receiver.cli.failure import Failure, Status

app = typer.Typer(
    no_args_is_help=True,
    help="Accounts at providers, besides those that the environment describes. Changing them needs a key with the "
    "scope admin.",
)

ProviderArgument = Annotated[str, typer.Argument(metavar="PROVIDER", help="As shown by `ringback provider list`.")]
AccountArgument = Annotated[
    str, typer.Argument(metavar="NAME_OR_ID", help="As shown by `ringback provider account list`.")
]
CredentialOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="The name of a credential, such as api_key; it is asked for, and not shown. May be repeated; by default "
        "those that the provider needs.",
    ),
]
CredentialFileOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="A file with a credential; - is standard input. May be repeated."),
]
DEFAULT = "default"
"""The account that the environment describes."""


@app.command("list")
def list_accounts(provider: ProviderArgument, as_json: Json = False) -> None:
    """List the accounts at a provider; the operator sees those of all organizations."""
    from receiver.cli.service import service

    with spinner("loading", as_json), service() as client:
        page = client.collect(_path(provider))
    print_page(page, as_json, _print_table)


@app.command(
    epilog="Examples:\n\n  ringback provider account add fal production --default\n\n"
    "  ringback provider account add fal team-a --credential-file api_key=/run/secrets/fal --rate 5"
)
def add(
    provider: ProviderArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="How tasks name it.")],
    credential: CredentialOption = None,
    credential_file: CredentialFileOption = None,
    is_default: Annotated[
        bool, typer.Option("--default", help="Tasks of this provider use it where they name none.")
    ] = False,
    everyone: Annotated[
        bool, typer.Option("--everyone", help="All organizations may use it. For the operator.")
    ] = False,
    organization: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose it is, by default your own. For the operator.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the API is, if elsewhere. For the operator.")
    ] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Calls a second, all replicas together.")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Calls at a time, of each process.")] = None,
    as_json: Json = False,
) -> None:
    """Add an account. Its credentials are asked for, or read from files: they are in no argument."""
    from receiver.cli.inputs import without_none
    from receiver.cli.service import service

    with service() as client:
        needed = credential or ([] if credential_file else _needed(client, provider))
        body = {
            "name": name,
            "credentials": _credentials(needed, credential_file or ()),
            "base_url": base_url,
            "calls_per_second": rate,
            "concurrency": concurrency,
            "is_default": is_default or None,
            "everyone": everyone or None,
            "organization_id": organization,
        }
        with spinner("adding an account", as_json):
            account = client.call("POST", _path(provider), body=without_none(body))
    print_result(account, as_json, _print)


@app.command(
    epilog="Examples:\n\n  ringback provider account rotate fal production\n\n"
    "  ringback provider account rotate fal production --credential-file api_key=- < new-key"
)
def rotate(
    provider: ProviderArgument,
    account: AccountArgument,
    credential: CredentialOption = None,
    credential_file: CredentialFileOption = None,
    as_json: Json = False,
) -> None:
    """Replace an account's credentials at once, also for the tasks that it created."""
    from receiver.cli.service import path_segment, service

    with service() as client:
        needed = credential or ([] if credential_file else _needed(client, provider))
        body = {"credentials": _credentials(needed, credential_file or ())}
        with spinner("rotating", as_json):
            changed = client.call("PATCH", f"{_path(provider)}/{path_segment(account)}", body=body)
    print_result(changed, as_json, _print)


@app.command()
def remove(provider: ProviderArgument, account: AccountArgument, as_json: Json = False) -> None:
    """Remove an account: it takes no new tasks. Those that it created are followed to their end."""
    from receiver.cli.service import path_segment, service

    with spinner("removing", as_json), service() as client:
        removed = client.call("DELETE", f"{_path(provider)}/{path_segment(account)}")
    print_result(removed, as_json, lambda _removed: echo(f"account {account} of {provider} is removed"))


def check_account(provider: str, account: str | None, *, as_json: bool) -> None:
    """Ask a provider about an account, by a call that is free; the exit status is 1 if it is not accepted."""
    from receiver.cli.service import path_segment, service

    with spinner("asking the provider", as_json), service() as client:
        found = client.call("POST", f"{_path(provider)}/{path_segment(account or DEFAULT)}/check")
    print_result(found, as_json, _print_check)
    if not found.get("is_accepted"):
        raise typer.Exit(Status.TASK_FAILED)


def _path(provider: str) -> str:
    from receiver.cli.service import path_segment

    return f"/api/v1/providers/{path_segment(provider)}/accounts"


def _needed(client: Any, provider: str) -> list[str]:
    """Return the names of the credentials that a provider needs."""
    providers = client.call("GET", "/api/v1/providers")["data"]
    found = [each["credentials"] for each in providers if each.get("name") == provider]
    return list(found[0]) if found else ["api_key"]  # the service refuses a provider that it does not know, by name


def _credentials(asked: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """Return credentials: those of files, and those that are asked for."""
    from receiver.cli.inputs import pairs, secret_of

    named = pairs(files, "--credential-file")
    if list(named.values()).count("-") > 1:
        raise Failure(Status.USAGE, "--credential-file: only one can be read from standard input")
    found = {name: secret_of(None, file, f"--{name}") or "" for name, file in named.items()}
    for name in asked:
        if not sys.stdin.isatty() and len(asked) > 1:
            raise Failure(Status.USAGE, f"there is no terminal to ask for {', '.join(asked)}: use --credential-file")
        found[name] = secret_of(None, "-", f"--{name}") or ""
    return found


def _print(account: Mapping[str, Any]) -> None:
    names = ("id", "provider", "name", "everyone", "is_default", "base_url", "calls_per_second", "concurrency")
    print_fields([(name.replace("_", " "), account.get(name)) for name in names])


def _print_check(found: Mapping[str, Any]) -> None:
    who = f"account {found.get('account')} of {found.get('provider')}"
    if found.get("is_accepted"):
        echo(f"{who}: accepted")
    else:
        echo(f"{who}: {found.get('fault')}", err=True)
    print_fields([(name.replace("_", " "), found.get(name)) for name in ("calls_left", "credits")])


def _print_table(accounts: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            each.get("id"),
            each.get("name"),
            "everyone" if each.get("everyone") else each.get("organization_id"),
            "yes" if each.get("is_default") else "",
            each.get("calls_per_second"),
            each.get("concurrency"),
            each.get("refusal"),
            age(each.get("updated_at")),
        )
        for each in accounts
    ]
    print_table(("id", "name", "of", "default", "a second", "at a time", "refused", "changed"), rows)
