"""The root command `ringback`, and its subcommands, each of which is imported where it is needed."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import getdoc
from types import MappingProxyType
from typing import Annotated

import typer

from receiver.cli.console import echo
from receiver.cli.failure import FailureReportingGroup

_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "init": "Examples:\n\n  ringback init\n\n  ringback init --defaults --file /etc/ringback/ringback.env",
        "doctor": "Examples:\n\n  ringback doctor --slow\n\n"
        "  ringback doctor --json | jq '.checks[] | select(.outcome == \"bad\")'\n\n"
        "Exit status: 0 all is well, or to be looked at, 1 something is bad, 3 the database cannot be opened.",
        "serve": "Example: ringback serve --host 0.0.0.0 --port 8080",
        "demo": "Example: ringback demo --tasks 50 --keep",
        "sandbox": "Example: ringback sandbox --lose-share 0.3 --seed 7 --option outcome=failed",
        "migrate": "Example: RINGBACK_DATABASE_URL=sqlite:////srv/ringback.db ringback migrate",
        "backup": "Examples:\n\n  ringback backup\n\n  ringback backup --to /backups/ringback.backup --force\n\n"
        "Exit status: 0 done, 2 usage, 3 not done.",
        "restore": "Example: ringback restore ringback.db-20260102T030405Z.backup\n\n"
        "Exit status: 0 done, 2 usage, 3 not done.",
        "health": "Example: ringback health --url http://127.0.0.1:8080 --timeout 3\n\n"
        "Exit status: 0 ready, 1 not ready or not reachable, 2 usage.",
        "listen": "Example: ringback listen --forward-to http://localhost:3000/hook --event task.completed\n\n"
        "Exit status: 0 ended by Ctrl-C, 2 usage, 3 not reachable or not allowed.",
        "mcp": "Example: RINGBACK_URL=https://ringback.example.com RINGBACK_API_KEY=... ringback mcp\n\n"
        "Exit status: 0 stdin ended, 2 usage.",
        "dashboard": "Examples:\n\n  ringback dashboard\n\n  ringback dashboard --print\n\n"
        "Exit status: 0 done, 2 usage, 3 not reachable or not allowed.",
        "report": "Examples:\n\n  ringback report --since 24h\n\n  ringback report --since 7d --json | jq .gaps\n\n"
        "Exit status: 0 everything adds up, 1 something is missing, 2 usage, 3 not reachable or not allowed.",
        "top": "Examples:\n\n  ringback top\n\n  ringback top --json | jq .tasks.now\n\n"
        "Exit status: 0 done, 2 usage, 3 not reachable or not allowed.",
    }
)
"""The commands in the order of the help, each with the end of its help."""
_GROUPS = ("task", "run", "webhook", "delivery", "key", "organization", "provider", "audit", "database")
_MODULES: Mapping[str, str] = MappingProxyType(
    {"demo": "demo.command", "doctor": "doctor.command", "restore": "backup"}
)
"""Where a command has a module of another name."""
_EPILOG = (
    "The client commands (task, run, webhook, delivery, key, organization, provider, audit, report, top, "
    "dashboard, listen, mcp) send requests to RINGBACK_URL (http://127.0.0.1:8080 by default) with the key "
    "RINGBACK_API_KEY, from the environment or a file .env.\n\n"
    "Exit status: 0 done, 1 the task or run failed, or the report does not add up, 2 usage, 3 not reachable or not "
    "allowed, 4 timed out.\n\n"
    "To see it work: ringback demo\n\n"
    "To complete commands and options with Tab: ringback --install-completion (bash, zsh, fish)"
)


def command_line(given: Sequence[str] = ()) -> typer.Typer:
    """Return the command line for the arguments: only the command that they begin with, or else all of them."""
    app = typer.Typer(
        cls=FailureReportingGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EPILOG)(ringback)
    alone = given[0] if given and given[0] in (*_COMMANDS, *_GROUPS) else None
    for name in _COMMANDS if alone is None else {alone} & _COMMANDS.keys():
        _add(app, name)
    for name in _GROUPS if alone is None else {alone} & set(_GROUPS):
        app.add_typer(import_module(f"receiver.cli.{name}").app, name=name)
    return app


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        echo(f"ringback {version('ringback')}")
        raise typer.Exit


def ringback(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Knows when your AI generation task is done, even if the webhook never comes, and tells everyone who asked."""


def _add(app: typer.Typer, name: str) -> None:
    """Add a command. Its help is its docstring, with each paragraph on one line: Typer wraps only such lines well."""
    command: Callable[..., None] = getattr(import_module(f"receiver.cli.{_MODULES.get(name, name)}"), name)
    paragraphs = (getdoc(command) or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(help=text, epilog=_COMMANDS[name])(command)
