"""The promise about streams: each event once, in order, without gaps, over any number of connections."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.prove.checker.line import Line
from tests.prove.checker.promise import Found, found
from tests.prove.checker.view import View

_MOST_SHOWN = 5


def streams_are_exact(view: View) -> Iterator[Found]:
    """Yield what a follower of the stream saw twice, out of order or not at all; it resumes with the last id it saw."""
    by_follower: dict[str, list[Line]] = defaultdict(list)
    for line in view.of("stream"):
        by_follower[line.who].append(line)
    sequences = [int(event["sequence"]) for event in view.events.values()]
    for who, lines in by_follower.items():
        seen = [line for line in lines if line.what == "event"]
        yield from _order(who, seen)
        yield from _gaps(who, _start(lines), seen, sequences)


def _order(who: str, seen: Sequence[Line]) -> Iterator[Found]:
    for before, line in pairwise(seen):
        if int(line["sequence"]) <= int(before["sequence"]):
            yield found(f"{who} saw event {line['sequence']} after {before['sequence']}", before, line)


def _gaps(who: str, start: int, seen: Sequence[Line], sequences: Sequence[int]) -> Iterator[Found]:
    had = {int(line["sequence"]) for line in seen}
    missing = [sequence for sequence in sequences if sequence > start and sequence not in had]
    if missing:
        shown = ", ".join(map(str, missing[:_MOST_SHOWN])) + (", ..." if len(missing) > _MOST_SHOWN else "")
        yield found(f"{who} never saw {len(missing)} events: {shown}", seen[-1] if seen else None)
    unknown = [line for line in seen if int(line["sequence"]) not in set(sequences)]
    if unknown:
        yield found(f"{who} saw {len(unknown)} events that are not in the table", *unknown[:_MOST_SHOWN])


def _start(lines: Sequence[Line]) -> int:
    """Return the position after which the follower wanted every event: that of its first connection, or 0."""
    return next((int(line.get("after") or 0) for line in lines if line.what == "follow"), 0)
