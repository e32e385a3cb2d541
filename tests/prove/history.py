"""The history of a campaign: one JSON line for each thing that a client, the provider, a subscriber or a reader saw.

A line is `{"n", "at", "who", "what", ...}`: its number from 1, the seconds since the campaign began by a monotone
clock, who saw it, and what. The file has no secrets.

| who | what | further fields |
|---|---|---|
| `client` | `call` | `call` (its number), `op`, `key` (Idempotency-Key or null), `mark`, `target` (an id), `count` |
| | `answer` | `call`, `status`, `code` (of an error), `ids`, `seconds`, `replayed`, `task_status` |
| | `no_answer` | `call`, `error`, `sent` (false: no connection was made) |
| `provider` | `made` | `provider_task_id`, `mark`, `attempt`, `task_id` and `webhook` (from the URL of its webhook) |
| | `answered` | `op` (`create`, `fetch`, `list`, `cancel`), `status` (null: cut), `fault`, `provider_task_id` |
| | `recalled`, `ended` | `provider_task_id`, `mark`, `status` |
| | `webhook` | `provider_task_id`, `status`, `kind` (`true`, `late`, `double`, `forged`, `lost`), `answer` |
| `subscriber:NAME` | `received` | `webhook_id`, `event_id`, `type`, `task_id`, `run_id`, `ok` (signature), `answer` |
| `stream` | `opened` | `after`, `status` |
| | `event` | `event_id`, `sequence`, `type`, `task_id`, `run_id` |
| | `reset` | `told`: the service could not resume it |
| `fault` | what was done | `hit`: whether it is known to have met what it was meant for; details |
| `campaign` | `begin` | `name`, `database`, `seed`, `rounds`, `wall` (unix seconds at the beginning) |
| | `slow` | the load did not come as far as the next fault wanted |
| | `faults over`, `load over`, `end` | `error`: why the campaign broke off |
| | `calm`, `stream` | `reached`: whether everything had ended, and the stream was read to its end, in time |
| `report` | `report` | what `ringback report` told, and its exit `status`; `missing`: there is no such command |
| `rows` | a table | `rows`: all rows at the end (`tests.prove.rows`) |

A mark is unique in a campaign, and goes with what is created through every party: `m0-12` is that of a single task,
`m0-12.b3` of one of a bulk, `m0-12.s2` of a step of a run.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

Line = dict[str, Any]


class History:
    """Writes the lines of one campaign to a file, and counts them by who and what in `counts`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[int] = Counter()
        """The statuses that clients got."""
        self._began = time.monotonic()
        self._numbers = itertools.count(1)
        self._calls = itertools.count(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    @property
    def now(self) -> float:
        """Seconds since the campaign began."""
        return time.monotonic() - self._began

    def write(self, who: str, what: str, **fields: Any) -> None:
        """Add a line. A value that JSON has no form for is written as its text."""
        line = {"n": next(self._numbers), "at": round(self.now, 4), "who": who, "what": what, **fields}
        self._file.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
        self.counts[who, what] += 1
        if (who, what) == ("client", "answer"):
            self.answers[fields["status"]] += 1

    def call(self, op: str, **fields: Any) -> int:
        """Add the line of a client's call; return its number, which its answer repeats."""
        number = next(self._calls)
        self.write("client", "call", call=number, op=op, **fields)
        return number

    def count(self, who: str, what: str) -> int:
        """Return how many lines there are of this kind."""
        return self.counts[who, what]


def read(path: Path) -> Iterator[Line]:
    """Yield the lines of a history in order."""
    with path.open("rb") as file:
        for line in file:
            yield orjson.loads(line)
