"""The root command `ringback`, with all its subcommands."""

from collections.abc import Callable
from inspect import getdoc
from typing import Annotated

import typer

from receiver.cli import audit, database, delivery, key, organization, provider, run, task, webhook
from receiver.cli.backup import backup, restore
from receiver.cli.console import echo
from receiver.cli.dashboard import dashboard
from receiver.cli.demo.command import demo
from receiver.cli.doctor.command import doctor
from receiver.cli.failure import FailureReportingGroup
from receiver.cli.health import health
from receiver.cli.init import init
from receiver.cli.listen import listen
from receiver.cli.mcp import mcp
from receiver.cli.migrate import migrate
from receiver.cli.report import report
from receiver.cli.sandbox import sandbox
from receiver.cli.serve import serve
from receiver.cli.top import top

app = typer.Typer(
    cls=FailureReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        echo(f"ringback {version('ringback')}")
        raise typer.Exit


@app.callback(
    epilog="The client commands (task, run, webhook, delivery, key, organization, provider, audit, report, top, "
    "dashboard, listen, mcp) send requests to RINGBACK_URL (http://127.0.0.1:8080 by default) with the key "
    "RINGBACK_API_KEY, from the environment or a file .env.\n\n"
    "Exit status: 0 done, 1 the task or run failed, or the report does not add up, 2 usage, 3 not reachable or not "
    "allowed, 4 timed out.\n\n"
    "To see it work: ringback demo\n\n"
    "To complete commands and options with Tab: ringback --install-completion (bash, zsh, fish)"
)
def ringback(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Knows when your AI generation task is done, even if the webhook never comes, and tells everyone who asked."""


def _add(command: Callable[..., None], epilog: str) -> None:
    """Add a command. Its help is its docstring, with each paragraph on one line: Typer wraps only such lines well."""
    paragraphs = (getdoc(command) or "").split("\n\n")
    app.command(help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs), epilog=epilog)(command)


_add(init, "Examples:\n\n  ringback init\n\n  ringback init --defaults --file /etc/ringback/ringback.env")
_add(
    doctor,
    "Examples:\n\n  ringback doctor --slow\n\n"
    "  ringback doctor --json | jq '.checks[] | select(.outcome == \"bad\")'\n\n"
    "Exit status: 0 all is well, or to be looked at, 1 something is bad, 3 the database cannot be opened.",
)
_add(serve, "Example: ringback serve --host 0.0.0.0 --port 8080")
_add(demo, "Example: ringback demo --tasks 50 --keep")
_add(sandbox, "Example: ringback sandbox --lose-share 0.3 --seed 7 --option outcome=failed")
_add(migrate, "Example: RINGBACK_DATABASE_URL=sqlite:////srv/ringback.db ringback migrate")
_add(
    backup,
    "Examples:\n\n  ringback backup\n\n  ringback backup --to /backups/ringback.backup --force\n\n"
    "Exit status: 0 done, 2 usage, 3 not done.",
)
_add(
    restore,
    "Example: ringback restore ringback.db-20260102T030405Z.backup\n\nExit status: 0 done, 2 usage, 3 not done.",
)
_add(
    health,
    "Example: ringback health --url http://127.0.0.1:8080 --timeout 3\n\n"
    "Exit status: 0 ready, 1 not ready or not reachable, 2 usage.",
)
_add(
    listen,
    "Example: ringback listen --forward-to http://localhost:3000/hook --event task.completed\n\n"
    "Exit status: 0 ended by Ctrl-C, 2 usage, 3 not reachable or not allowed.",
)
_add(
    mcp,
    "Example: RINGBACK_URL=https://ringback.example.com RINGBACK_API_KEY=... ringback mcp\n\n"
    "Exit status: 0 stdin ended, 2 usage.",
)
_add(
    dashboard,
    "Examples:\n\n  ringback dashboard\n\n  ringback dashboard --print\n\n"
    "Exit status: 0 done, 2 usage, 3 not reachable or not allowed.",
)
_add(
    report,
    "Examples:\n\n  ringback report --since 24h\n\n  ringback report --since 7d --json | jq .gaps\n\n"
    "Exit status: 0 everything adds up, 1 something is missing, 2 usage, 3 not reachable or not allowed.",
)
_add(
    top,
    "Examples:\n\n  ringback top\n\n  ringback top --json | jq .tasks.now\n\n"
    "Exit status: 0 done, 2 usage, 3 not reachable or not allowed.",
)
app.add_typer(task.app, name="task")
app.add_typer(run.app, name="run")
app.add_typer(webhook.app, name="webhook")
app.add_typer(delivery.app, name="delivery")
app.add_typer(key.app, name="key")
app.add_typer(organization.app, name="organization")
app.add_typer(provider.app, name="provider")
app.add_typer(audit.app, name="audit")
app.add_typer(provider.app, name="provider")
app.add_typer(database.app, name="database")
