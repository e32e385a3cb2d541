"""Promises about what clients create: acknowledged work exists and ends, and is done as often as it was asked for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.prove.checker.line import Line
from tests.prove.checker.promise import Found, found
from tests.prove.checker.view import ENDED, Call, Row, View, root_of

NOTHING_STORED = frozenset({503, 429, 400, 401, 403, 404, 409, 413, 422})
"""The statuses of a create's answer that say that nothing was stored."""
IN_PROGRESS = "idempotency_key_in_use"
"""The code of a 503 that says that another request with the key is doing the work."""


def acknowledged_exists(view: View) -> Iterator[Found]:
    """Yield ids that an acknowledged create, bulk or run returned, and that no row has."""
    for call in view.calls_of("create", "bulk", "run"):
        known = view.runs if call.op == "run" else view.tasks
        if call.is_acknowledged:
            for uid in call.ids:
                if uid not in known:
                    yield found(f"{call.op} answered {call.status} with {uid}, which no row has", call.answered)


def everything_ends(view: View) -> Iterator[Found]:
    """Yield tasks and runs that have not ended although the faults have."""
    for uid, task in view.tasks.items():
        if task["status"] not in ENDED:
            yield found(
                f"task {uid} is {task['status']} ({task['submission']}) at the end", _begin(view, task.get("mark"))
            )
    for uid, run in view.runs.items():
        if run["status"] not in ENDED:
            yield found(f"run {uid} is {run['status']} at the end", _begin(view, run.get("mark")))


def one_key_one_work(view: View) -> Iterator[Found]:
    """Yield keys whose answers name different ids, or whose work is in the tables more than once."""
    for (op, key), calls in _by_key(view).items():
        answers = {tuple(call.ids): call for call in calls if call.is_acknowledged}
        if len(answers) > 1:
            lines = [call.answered for call in answers.values()]
            yield found(f"the answers to key {key!r} ({op}) name {sorted(map(list, answers))}", *lines)
        marks = dict.fromkeys(mark for call in calls for mark in call.marks)
        for mark in marks:
            rows = _rows_with(view, op, mark)
            if len(rows) > 1:
                ids = [str(row["run_id" if op == "run" else "task_id"]) for row in rows]
                yield found(f"key {key!r} ({op}) made {len(rows)} rows: {ids}", *(call.began for call in calls))


def one_key_one_attempt(view: View) -> Iterator[Found]:
    """Yield tasks and steps that were begun again more often than clients asked for it; one key asks once."""
    retries = _retries_asked(view)
    for uid, events in view.events_by_task.items():
        begun = [event for event in events if event.get("retries")]
        asked = retries.get(uid, {})
        if len(begun) > len(asked):
            text = f"task {uid} was begun again {len(begun)} times, but that was asked for {len(asked)} times"
            yield found(text, *(call.began for call in asked.values()))
    for mark, rows in view.tasks_by_mark.items():
        run_id = rows[0].get("run_id")
        if run_id is not None and len(rows) > 1 + len(retries.get(str(run_id), {})):
            ids = [str(row["task_id"]) for row in rows]
            yield found(f"step {mark!r} of run {run_id} was begun {len(rows)} times: {ids}", _begin(view, mark))


def nothing_stored_is_true(view: View) -> Iterator[Found]:
    """Yield creates without a key that were answered with "nothing was stored", and yet are there or were bought."""
    by_mark: dict[str, list[Call]] = defaultdict(list)
    for call in view.calls_of("create", "bulk", "run"):
        for mark in call.marks:
            by_mark[mark].append(call)
    for mark, calls in by_mark.items():
        if any(call.key for call in calls):
            continue
        possible = sum(not _says_nothing_stored(call) for call in calls)
        rows = _rows_with(view, calls[0].op, mark)
        refusals = [call.answered for call in calls if _says_nothing_stored(call)]
        if len(rows) > possible and refusals:
            ids = [str(row["run_id" if calls[0].op == "run" else "task_id"]) for row in rows]
            yield found(
                f"{calls[0].op} of {mark!r}: {len(refusals)} answers say that nothing was stored, yet {ids}", *refusals
            )
        elif not rows and not possible:
            bought = [made for made in view.made.values() if made.mark is not None and root_of(made.mark) == mark]
            if bought:
                yield found(f"{mark!r} was refused, yet the provider made {bought[0].id}", *refusals, bought[0].line)


def no_internal_error(view: View) -> Iterator[Found]:
    """Yield answers 500: an outage is 503 or 504, and nothing else may break."""
    for call in view.calls.values():
        if call.status == 500:
            yield found(f"{call.op} was answered with 500 ({call.code})", call.began, call.answered)
    for line in view.of("provider", "webhook"):
        if line.get("answer") == 500:
            yield found(f"the webhook of {line['provider_task_id']} was answered with 500", line)


def _by_key(view: View) -> dict[tuple[str, str], list[Call]]:
    groups: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in view.calls_of("create", "bulk", "run"):
        if call.key is not None:
            groups[call.op, call.key].append(call)
    return groups


def _rows_with(view: View, op: str, mark: str) -> Sequence[Row]:
    return (view.runs_by_mark if op == "run" else view.tasks_by_mark).get(mark, [])


def _retries_asked(view: View) -> dict[str, dict[str, Call]]:
    """Return by task or run the requests to do it again, one for each key and one for each request without."""
    asked: dict[str, dict[str, Call]] = defaultdict(dict)
    for call in view.calls_of("task_retry", "run_retry"):
        if call.target is not None:
            asked[call.target].setdefault(call.key or f"call {call.began['call']}", call)
    return asked


def _says_nothing_stored(call: Call) -> bool:
    if call.op == "create" and call.status in (
        400,
        402,
        403,
        422,
    ):  # the provider's own refusal is passed on with a row
        return False
    return call.status in NOTHING_STORED and call.code != IN_PROGRESS


def _begin(view: View, mark: object) -> Line | None:
    call = view.created_by(mark)
    return None if call is None else call.began
