"""Promises about money: what the provider is asked to make, and what it is not."""

from collections import defaultdict
from collections.abc import Iterator

from tests.prove.checker.promise import Found, found
from tests.prove.checker.view import Call, Made, Row, View, moment_of

REFUSED_BUT_MADE = frozenset({429, 503})
"""Answers to a create call that mean "nothing was made": a provider that makes a task all the same is not believed."""


def never_bought_twice(view: View) -> Iterator[Found]:
    """Yield attempts for which the provider made more than one task."""
    for purchases in by_attempt(view).values():
        kept = [made for made in purchases if made.answered not in REFUSED_BUT_MADE]
        if len(kept) > 1 or (len(purchases) > 1 and not kept):
            first = purchases[0]
            name = f"{first.task_id or first.mark} attempt {first.attempt}"
            ids = [made.id for made in purchases]
            yield found(f"the provider made {len(ids)} tasks for {name}: {ids}", *(made.line for made in purchases))


def one_attempt_at_a_time(view: View) -> Iterator[Found]:
    """Yield the provider's tasks for a further attempt that were made while an earlier attempt could still succeed.

    A client that asks for a retry is told that the attempt before may exist all the same, and be paid for.
    """
    by_task: dict[str, list[Made]] = defaultdict(list)
    for made in view.made.values():
        if made.task_id is not None and made.answered not in REFUSED_BUT_MADE:
            by_task[made.task_id].append(made)
    asked = {call.target for call in view.calls_of("task_retry")}
    for task_id, purchases in by_task.items():
        for made in purchases:
            open_ones = [each for each in purchases if each.attempt < made.attempt and _is_open(each, made.line.n)]
            if open_ones and task_id not in asked:
                text = f"the provider made {made.id} for attempt {made.attempt} of task {task_id}"
                yield found(f"{text}, while {open_ones[0].id} could still succeed", open_ones[0].line, made.line)


def refused_but_made(view: View) -> int:
    """Return how many tasks a provider made for an attempt besides the one that counts, after it said that it did not.

    The README names this exception: it is counted, and not held against the promise.
    """
    return sum(
        len(purchases) - 1
        for purchases in by_attempt(view).values()
        if len(purchases) > 1 and any(made.answered in REFUSED_BUT_MADE for made in purchases)
    )


def intent_first(view: View) -> Iterator[Found]:
    """Yield the provider's tasks that were made for a client of ours without a row that says so."""
    for made in view.made.values():
        if made.task_id is not None:
            if made.task_id not in view.tasks:
                yield found(f"the provider made {made.id} for task {made.task_id}, which has no row", made.line)
        elif made.mark is not None and made.mark not in view.tasks_by_mark:
            yield found(f"the provider made {made.id} for {made.mark!r}, which has no row", made.line)


def nothing_after_a_cancel(view: View) -> Iterator[Found]:
    """Yield the provider's tasks that were made for a run or task after its cancel was acknowledged.

    A call that was under way when the cancel was stored is no contradiction: its intent is older than the cancel.
    """
    for call in view.calls_of("run_cancel", "task_cancel"):
        if not call.is_acknowledged or call.answered is None or call.target is None or _retried(view, call):
            continue
        for made in view.made.values():
            task = _task_of(view, made)
            if (
                task is None
                or made.line.n < call.answered.n
                or call.target not in (task["task_id"], task.get("run_id"))
            ):
                continue
            if not _was_under_way(view, call, made, task):
                text = f"{call.op} of {call.target} was acknowledged, then the provider was asked for {made.id}"
                yield found(text, call.answered, made.line)


def cancelled_stays_cancelled(view: View) -> Iterator[Found]:
    """Yield tasks and runs whose cancel was acknowledged, and which ended otherwise without a retry."""
    for call in view.calls_of("run_cancel", "task_cancel"):
        row = (view.runs if call.op == "run_cancel" else view.tasks).get(str(call.target))
        if call.is_acknowledged and row is not None and row["status"] != "cancelled" and not _retried(view, call):
            yield found(f"{call.op} of {call.target} was acknowledged, yet it is {row['status']}", call.answered)


def unnamed_purchases(view: View) -> list[Made]:
    """Return the provider's tasks that were made for us, and that no row names at the end."""
    return [made for made in view.made.values() if made.id not in view.tasks_by_provider_id]


def by_attempt(view: View) -> dict[tuple[str, int], list[Made]]:
    """Return the provider's tasks by what they were made for: the task's id (or its mark), and the attempt."""
    groups: dict[tuple[str, int], list[Made]] = defaultdict(list)
    for made in view.made.values():
        name = made.task_id or made.mark
        if name is not None:
            groups[name, made.attempt].append(made)
    return groups


def _is_open(made: Made, n: int) -> bool:
    """Whether the provider's task had not failed, nor been recalled, before this line."""
    return not any(line["status"] in ("failed", "cancelled") and line.n < n for line in made.ends)


def _task_of(view: View, made: Made) -> Row | None:
    if made.task_id is not None:
        return view.tasks.get(made.task_id)
    rows = view.tasks_by_mark.get(str(made.mark), [])
    return rows[0] if len(rows) == 1 else None


def _retried(view: View, cancel: Call) -> bool:
    """Whether a retry of the same thing began before or after the cancel was answered: the client then wants both."""
    return any(
        call.target == cancel.target and (call.answered is None or call.answered.n > cancel.began.n)
        for call in view.calls_of("run_retry", "task_retry")
    )


def _was_under_way(view: View, call: Call, made: Made, task: Row) -> bool:
    """Whether the intent of the attempt was written before the cancel, by the times in the rows."""
    rows = [
        row for row in view.table("attempts") if row["task_id"] == task["task_id"] and row["number"] == made.attempt
    ]
    submitted = moment_of(rows[0].get("submitted_at") if rows else task.get("submitted_at"))
    run = view.runs.get(str(call.target))
    cancelled = moment_of((task if run is None else run).get("ended_at"))
    return submitted is not None and cancelled is not None and submitted <= cancelled
