"""`ringback organization`: create, list, limits."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, echo, print_fields, print_page, print_result, print_table, spinner
from receiver.cli.failure import Failure, Status
from receiver.domain.ids import is_id

app = typer.Typer(
    no_args_is_help=True,
    help="Create organizations and set their limits. This needs an admin key of the organization `default`.",
)

_PATH = "/api/v1/organizations"


@app.command(
    epilog="Examples:\n\n  ringback organization create acme\n\n"
    "  ringback organization create acme --limit webhooks=50 --limit creates_per_second=20"
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that no other organization has.")],
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A limit of its own: a number, or unlimited. May be repeated."),
    ] = None,
    key_name: Annotated[str | None, typer.Option(help="The name of its first admin key.")] = None,
    as_json: Json = False,
) -> None:
    """Create an organization with an admin key, which is printed once."""
    from receiver.cli.inputs import without_none
    from receiver.cli.service import service

    body = without_none({"name": name, "limits": _limits(limit or (), "--limit"), "key_name": key_name})
    with spinner("creating an organization", as_json), service() as client:
        organization = client.call("POST", _PATH, body=body)
    print_result(organization, as_json, _print_created)


@app.command("list")
def list_organizations(as_json: Json = False) -> None:
    """List the organizations."""
    from receiver.cli.service import service

    with spinner("loading", as_json), service() as client:
        page = client.collect(_PATH)
    print_page(page, as_json, _print_table)


@app.command(
    epilog="Examples:\n\n  ringback organization limits acme\n\n"
    "  ringback organization limits acme --set webhooks=50 --set streams=unlimited --unset open_tasks"
)
def limits(
    organization: Annotated[
        str, typer.Argument(metavar="NAME_OR_ID", help="As shown by `ringback organization list`.")
    ],
    changed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a limit: a number, or unlimited. May be repeated."),
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Let a limit have its default again. May be repeated.")
    ] = None,
    provider_account: Annotated[
        bool | None,
        typer.Option(
            help="Whether the provider account is its own: it may look at the account, and adopt tasks that are not "
            "tracked."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set the limits of an organization; without options, print them and what is used."""
    from receiver.cli.inputs import without_none
    from receiver.cli.service import service

    values = {**_limits(changed or (), "--set"), **dict.fromkeys(unset or ())}
    body = without_none({"limits": values or None, "owns_provider_account": provider_account})
    with spinner("loading", as_json), service() as client:
        path = f"{_PATH}/{_id_of(client, organization)}"
        shown = client.call("PATCH", path, body=body) if body else client.call("GET", path)
    print_result(shown, as_json, _print)


def _limits(given: Sequence[str], option: str) -> dict[str, Any]:
    from receiver.cli.inputs import typed_pairs

    return typed_pairs(given, option)


def _id_of(client: Any, name_or_id: str) -> str:
    """Return the id of the organization of this name or id. Raises `Failure` if there is none."""
    if is_id(name_or_id.lower()):
        return name_or_id
    for each in client.collect(_PATH)["data"]:
        if each["name"] == name_or_id:
            return str(each["id"])
    raise Failure(
        Status.USAGE, f"there is no organization {name_or_id!r}; `ringback organization list` shows those there are"
    )


def _print_created(organization: Mapping[str, Any]) -> None:
    names = ("id", "name", "key")
    print_fields([*((name, organization.get(name)) for name in names), ("limits", organization.get("set_limits"))])
    echo("Keep the key: it is not shown again.", err=True)


def _print(organization: Mapping[str, Any]) -> None:
    own = "yes" if organization.get("owns_provider_account") else "no"
    names = ("id", "name")
    print_fields([*((name, organization.get(name)) for name in names), ("provider account", own)])
    used, set_here = organization.get("used") or {}, organization.get("set_limits") or {}
    rows = [
        (name, "unlimited" if value is None else value, used.get(name), "yes" if name in set_here else "no")
        for name, value in (organization.get("limits") or {}).items()
    ]
    print_table(("limit", "allowed", "used", "set here"), rows)


def _print_table(organizations: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            each.get("id"),
            each.get("name"),
            "yes" if each.get("owns_provider_account") else "no",
            " ".join(f"{name}={value}" for name, value in (each.get("set_limits") or {}).items()),
            age(each.get("created_at")),
        )
        for each in organizations
    ]
    print_table(("id", "name", "provider account", "limits", "age"), rows)
