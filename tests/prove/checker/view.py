"""A history as the promises read it: calls with their answers, the provider's tasks, and the rows at the end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from tests.prove.checker.line import Line

Row = Mapping[str, Any]

OWN_CODES = frozenset(
    {"timed_out", "provider_lost_task", "submission_unknown", "internal_error", "provider_task_taken"}
)
"""The codes with which Ringback fails a task by itself, without the provider's word."""
ENDED = frozenset({"completed", "failed", "cancelled"})
END_EVENTS = frozenset({"task.completed", "task.failed", "task.cancelled"})


@dataclass(slots=True)
class Call:
    """One request of a client: `began` is its line, `answered` that of its answer (None if none came)."""

    began: Line
    answered: Line | None = None
    lost: Line | None = None

    @property
    def op(self) -> str:
        """What it asked for: create, bulk, run, run_cancel, run_retry, task_cancel, task_retry, webhook or another."""
        return str(self.began.get("op"))

    @property
    def key(self) -> str | None:
        """Its Idempotency-Key."""
        return _text(self.began.get("key"))

    @property
    def target(self) -> str | None:
        """The id of the task, run or webhook that it is about."""
        return _text(self.began.get("target"))

    @property
    def marks(self) -> list[str]:
        """The marks of what it creates, one a task or run; those of a bulk end with `.b` and the position in it."""
        mark = self.began.get("mark")
        if mark is None:
            return []
        if self.op == "bulk":
            return [f"{mark}.b{position}" for position in range(int(self.began.get("count") or 0))]
        return [str(mark)]

    @property
    def status(self) -> int | None:
        """The status of its answer; None if none came."""
        return None if self.answered is None else int(self.answered["status"])

    @property
    def code(self) -> str | None:
        """The code of the error in its answer."""
        return None if self.answered is None else _text(self.answered.get("code"))

    @property
    def ids(self) -> list[str]:
        """The ids in its answer."""
        return [] if self.answered is None else [str(each) for each in self.answered.get("ids") or ()]

    @property
    def is_acknowledged(self) -> bool:
        """Whether its answer is a 2xx."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(slots=True)
class Made:
    """One task of the provider's: how it was made, and what became of it there."""

    line: Line
    ends: list[Line] = field(default_factory=list)
    answered: Any = None
    """The status with which its create call was answered, or why it was not; None if the history does not say."""

    @property
    def id(self) -> str:
        """The provider's id."""
        return str(self.line["provider_task_id"])

    @property
    def mark(self) -> str | None:
        """The mark in its input."""
        return _text(self.line.get("mark"))

    @property
    def task_id(self) -> str | None:
        """Ringback's id, as its webhook URL has it; None without one."""
        return _text(self.line.get("task_id"))

    @property
    def attempt(self) -> int:
        """The attempt that it was made for, as its webhook URL has it; 1 without one."""
        return int(self.line.get("attempt") or 1)

    @property
    def statuses(self) -> set[str]:
        """The ends that the provider gave it."""
        return {str(line["status"]) for line in self.ends}


class View:
    """A whole history, indexed."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.calls: dict[int, Call] = {}
        self.made: dict[str, Made] = {}
        self.tables: dict[str, list[Row]] = {}
        self.reports: list[Line] = []
        """What `ringback report` said at the end; empty where there is no such command."""
        self._by_who: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            self._add(line)

    def _add(self, line: Line) -> None:
        self._by_who[line.who.partition(":")[0]].append(line)
        match line.who, line.what:
            case "client", "call":
                self.calls[line["call"]] = Call(line)
            case "client", "answer":
                self.calls[line["call"]].answered = line
            case "client", "no_answer":
                self.calls[line["call"]].lost = line
            case "provider", "made":
                self.made[str(line["provider_task_id"])] = Made(line, answered=line.get("answered"))
            case "provider", "ended" | "recalled":
                self._add_end(line)
            case "provider", "answered":
                made = self.made.get(str(line.get("provider_task_id")))
                if made is not None and line.get("op") == "create":
                    made.answered = line.get("status")
            case "rows", table:
                self.tables.setdefault(table, []).extend(line.get("rows") or ())
            case "report", "report" if not line.get("missing"):
                self.reports.append(line)

    def _add_end(self, line: Line) -> None:
        made = self.made.get(str(line["provider_task_id"]))
        if made is not None:
            status = "cancelled" if line.what == "recalled" else line["status"]
            made.ends.append(Line(line.n, line.at, line.who, line.what, {**line.fields, "status": status}))

    def of(self, who: str, what: str | None = None) -> list[Line]:
        """Return the lines of a party (for `subscriber` and `stream` of all of them), with `what` only those."""
        return [line for line in self._by_who.get(who, ()) if what is None or line.what == what]

    def table(self, name: str) -> list[Row]:
        """Return the rows of a table at the end."""
        return self.tables.get(name, [])

    def calls_of(self, *ops: str) -> list[Call]:
        """Return the calls that asked for one of these, in the order in which they began."""
        return [call for call in self.calls.values() if call.op in ops]

    @cached_property
    def wall(self) -> float | None:
        """The wall clock of the harness when the history began, in unix seconds; None if the history does not say."""
        walls = [line.get("wall") for line in self.of("campaign", "begin")]
        return None if not walls or walls[0] is None else float(walls[0]) - self.of("campaign", "begin")[0].at

    @cached_property
    def tasks(self) -> dict[str, Row]:
        """The tasks at the end, by id."""
        return {str(row["task_id"]): row for row in self.table("tasks")}

    @cached_property
    def runs(self) -> dict[str, Row]:
        """The runs at the end, by id."""
        return {str(row["run_id"]): row for row in self.table("runs")}

    @cached_property
    def events(self) -> dict[str, Row]:
        """The events at the end, by id, in the order of their sequence numbers, with their snapshot's fields."""
        rows = sorted(self.table("events"), key=lambda row: int(row["sequence"]))
        return {str(row["event_id"]): {**(row.get("snapshot") or {}), **row} for row in rows}

    @cached_property
    def webhooks(self) -> dict[str, Row]:
        """The webhooks at the end, by id: registered ones, and callbacks of clients."""
        return {str(row["webhook_id"]): row for row in self.table("webhooks")}

    @cached_property
    def registered(self) -> dict[str, Row]:
        """The registered webhooks at the end, by id."""
        return {uid: row for uid, row in self.webhooks.items() if row.get("kind", "registered") == "registered"}

    @cached_property
    def tasks_by_mark(self) -> dict[str, list[Row]]:
        """The tasks at the end, by mark."""
        return grouped(self.table("tasks"), "mark")

    @cached_property
    def runs_by_mark(self) -> dict[str, list[Row]]:
        """The runs at the end, by mark."""
        return grouped(self.table("runs"), "mark")

    @cached_property
    def events_by_task(self) -> dict[str, list[Row]]:
        """The events of each task, in the order of their sequence numbers."""
        return grouped(self.events.values(), "task_id")

    @cached_property
    def tasks_by_provider_id(self) -> dict[str, Row]:
        """The tasks at the end, by the provider's ids of all their attempts."""
        found = {
            str(row["provider_task_id"]): self.tasks[str(row["task_id"])]
            for row in self.table("attempts")
            if row.get("provider_task_id") and str(row["task_id"]) in self.tasks
        }
        present = {str(row["provider_task_id"]): row for row in self.tasks.values() if row.get("provider_task_id")}
        return found | present

    def created_by(self, mark: Any) -> Call | None:
        """Return the first call that asked for what has this mark (of a step: the mark of its run)."""
        return self._first_calls.get(str(mark)) or self._first_calls.get(root_of(str(mark)))

    @cached_property
    def _first_calls(self) -> dict[str, Call]:
        found: dict[str, Call] = {}
        for call in self.calls_of("create", "bulk", "run"):
            for mark in call.marks:
                found.setdefault(mark, call)
        return found


def moment_of(text: Any) -> datetime | None:
    """Return a time as the rows have it: ISO 8601, UTC also where it does not say so; None for null."""
    if not text:
        return None
    moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def root_of(mark: str) -> str:
    """Return the mark of the run of a step's mark, which is `<mark of the run>.s<position>`."""
    return mark.partition(".s")[0]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def grouped(rows: Iterable[Row], name: str) -> dict[str, list[Row]]:
    """Return rows by the value of one column, without those where it is null."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.get(name) is not None:
            groups[str(row[name])].append(row)
    return groups
