"""What waits: tasks and deliveries that are due and late, deliveries given up, webhooks that are switched off."""

from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

from receiver.cli.doctor.result import DoctorResult, bad, look, ok
from receiver.clock import wall_now
from receiver.storage import samples
from receiver.storage.reading import ReadBeside

_LATE, _VERY_LATE = timedelta(minutes=1), timedelta(hours=1)


async def backlog_checks(read: ReadBeside) -> list[DoctorResult]:
    """Return how much waits, and for how long the oldest of it."""
    times = {"now": wall_now(), "late": wall_now() - _LATE}
    due = [await read(samples.due_tasks(each), times) for parts in samples.DUE_TASKS.values() for each in parts]
    tasks = [row for rows in due for row in rows]
    return [
        _waiting("due tasks", tasks, "calls to the provider: RINGBACK_PROVIDER_RATE may be too low for them"),
        _waiting("due deliveries", await read(samples.due_deliveries(), times), "slow subscribers, or a rate_limit"),
        *_given_up((await read(samples.newest_dead_deliveries()))[0]["dead"]),
        *_switched_off((await read(samples.faulty_webhooks()))[0]),
    ]


def _waiting(name: str, rows: list[dict[str, Any]], reason: str) -> DoctorResult:
    count, late = sum(row["due"] for row in rows), sum(row["overdue"] for row in rows)
    oldest = min((row["oldest"] for row in rows if row["oldest"] is not None), default=None)
    if oldest is None or not late:
        return ok(name, f"{count}, none of them late")
    age = wall_now() - oldest.astimezone(UTC)
    found = f"{count}, of which {late} are late; the oldest by {_text(age)}"
    mend = f"is the service running (`ringback health`)? Else look at {reason}"
    return (bad if age > _VERY_LATE else look)(name, found, mend)


def _text(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


def _given_up(dead: int) -> list[DoctorResult]:
    name = "dead deliveries"
    if not dead:
        return [ok(name, "none of the newest")]
    found = f"{dead} of the newest {samples.MOST_COUNTED} were given up"
    return [
        look(
            name, found, "`ringback delivery list --status dead` says why; `ringback webhook recover` sends them again"
        )
    ]


def _switched_off(counts: Mapping[str, int]) -> list[DoctorResult]:
    name = "webhooks off"
    if not any(counts.values()):
        return [ok(name, "none is switched off or failing")]
    found = f"{counts['disabled']} were switched off because they failed, {counts['failing']} fail at present"
    return [look(name, found, "`ringback webhook list` names them; mend the endpoint, then switch it on again")]
