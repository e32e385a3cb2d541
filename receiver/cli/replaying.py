"""Following a replay to its end: looks at it now and again, through a restart of the service, with a bar."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from receiver.cli.console import age, print_fields, watched
from receiver.cli.failure import ServiceUnreachable, Status
from receiver.cli.service import ServiceClient

_PAUSE_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""How long a service that was there may be gone: it is being started again, as a rule."""

ReplayDocument = Mapping[str, Any]


def follow(
    client: ServiceClient, path: str, replay: ReplayDocument, longest: float | None, as_json: bool
) -> ReplayDocument:
    """Look until nothing of the replay is on its way, or for `longest` seconds; return it as it is then."""
    end = None if longest is None else time.monotonic() + longest
    with _bar(as_json) as show:
        while True:
            replay = _look(client, path)
            show(replay)
            left = _PAUSE_SECONDS if end is None else end - time.monotonic()
            if is_over(replay) or left <= 0:
                return replay
            time.sleep(min(_PAUSE_SECONDS, left))


def is_over(replay: ReplayDocument) -> bool:
    """Say whether nothing of it is on its way, or will be."""
    return replay["status"] != "running" and not replay["pending"]


def status_of(replay: ReplayDocument) -> Status:
    """Return the exit status for a replay that is over: failed unless all of it was delivered."""
    failed = replay["status"] == "cancelled" or replay["dead"] or replay["cancelled"]
    return Status.TASK_FAILED if failed else Status.DONE


def print_replay(replay: ReplayDocument) -> None:
    """Print a replay, a field a line."""
    print_fields(
        [
            ("replay", replay.get("id")),
            ("kind", replay.get("kind")),
            ("status", replay.get("status")),
            ("since", replay.get("since")),
            ("until", replay.get("until")),
            ("events", " ".join(replay.get("event_types") or ())),
            ("deliveries", replay.get("deliveries")),
            ("sent", replay.get("sent")),
            ("delivered", replay.get("delivered")),
            ("pending", replay.get("pending")),
            ("given up", replay.get("dead")),
            ("cancelled", replay.get("cancelled")),
            ("age", age(replay.get("created_at"))),
        ]
    )


def _look(client: ServiceClient, path: str) -> ReplayDocument:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            replay: ReplayDocument = client.call("GET", path)
        except ServiceUnreachable:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return replay


@contextmanager
def _bar(as_json: bool) -> Iterator[Callable[[ReplayDocument], None]]:
    """Show how many are over, if a person watches."""
    if not watched(as_json):
        yield lambda replay: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("delivered", total=None)

        def show(replay: ReplayDocument) -> None:
            over = replay["delivered"] + replay["dead"] + replay["cancelled"]
            progress.update(bar, total=replay["deliveries"], completed=over)

        yield show
