"""`ringback audit`: who changed what."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from receiver.cli.console import Json, age, print_page, print_table, spinner
from receiver.cli.options import TIME_HELP, Limit, ListAll

app = typer.Typer(no_args_is_help=True, help="Show who changed what. This needs a key with the scope admin.")

SinceTime = Annotated[str | None, typer.Option(metavar="TIME", help=TIME_HELP)]
UntilTime = Annotated[str | None, typer.Option(metavar="TIME", help=TIME_HELP)]


@app.command(
    "list",
    epilog="Secrets are not shown: they are `set` or `changed`.\n\n"
    "Examples:\n\n"
    "  ringback audit list --since 7d --action key.create\n\n"
    "  ringback audit list --target $WEBHOOK_ID --all --json",
)
def list_entries(
    since: SinceTime = None,
    until: UntilTime = None,
    action: Annotated[str | None, typer.Option(metavar="ACTION", help="Such as webhook.change or key.revoke.")] = None,
    target: Annotated[str | None, typer.Option(metavar="ID", help="Only changes of this webhook, key, ...")] = None,
    key_id: Annotated[str | None, typer.Option(metavar="ID", help="Only changes made with this key.")] = None,
    limit: Limit = 20,
    list_all: ListAll = False,
    as_json: Json = False,
) -> None:
    """List the changes, newest first."""
    from receiver.cli.inputs import moment
    from receiver.cli.service import service

    filters = {"since": moment(since), "until": moment(until), "action": action, "target": target, "key_id": key_id}
    with spinner("loading", as_json), service() as client:
        page = client.collect("/api/v1/audit", filters, None if list_all else limit)
    print_page(page, as_json, _print_table)


def _print_table(entries: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            age(entry.get("created_at")),
            entry.get("action"),
            entry.get("target"),
            entry.get("actor"),
            entry.get("address"),
            _changes(entry.get("before") or {}, entry.get("after") or {}),
        )
        for entry in entries
    ]
    print_table(("age", "action", "target", "by", "from", "what"), rows)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    names = [*before, *(name for name in after if name not in before)]
    return ", ".join(f"{name}: {before.get(name)} → {after.get(name)}" if before else name for name in names)
