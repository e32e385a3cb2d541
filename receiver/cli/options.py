"""Options that several commands share, each defined once. (`--json` is defined in `receiver.cli.console`.)"""

from pathlib import Path
from typing import Annotated

import typer

TIME_HELP = "ISO 8601, unix seconds, or how long ago: 30m, 24h, 7d."

Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has ended; exit status 1 if it did not succeed.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="Stop waiting after this time, with exit status 4.")
]
EventTypes = Annotated[
    list[str] | None, typer.Option("--event", metavar="TYPE", help="Such as task.completed; may be repeated.")
]
CreatedAfter = Annotated[str | None, typer.Option(metavar="TIME", help=TIME_HELP)]
CreatedBefore = Annotated[str | None, typer.Option(metavar="TIME", help=TIME_HELP)]
Limit = Annotated[int, typer.Option(min=1, help="List at most this many, the newest.")]
ListAll = Annotated[bool, typer.Option("--all", help="List all, without a limit.")]
SecretFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="A file with that secret; - is stdin, and asks for it on a terminal.")
]
"""The file of the option that stands before it: `<its name>_file`."""
Programs = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where pg_dump and pg_restore are, if others are found first (PostgreSQL)."),
]
SHOWN_TO_OTHERS = "Other users of this machine can read it in the list of processes; they cannot read a file."
AllMatching = Annotated[
    bool, typer.Option("--all-matching", help="All tasks that match the filters; without one, all tasks.")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only tasks of this model.")]
TaskTypeOption = Annotated[str | None, typer.Option("--task-type", help="Only tasks of this type.")]
ProviderOption = Annotated[
    str | None, typer.Option("--provider", metavar="NAME", help="Only tasks of this provider, such as fal.")
]
RunOption = Annotated[str | None, typer.Option("--run", metavar="ID", help="Only tasks of this run.")]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Only tasks with this in their metadata; may be repeated."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print how many tasks match and may be changed.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask first.")]
