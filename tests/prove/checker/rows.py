"""Promises about the tables: what they say at the end fits together, and the report adds up."""

from collections import Counter
from collections.abc import Iterator

from tests.prove.checker.promise import Found, found
from tests.prove.checker.view import END_EVENTS, ENDED, Row, View, grouped

_STEP_ENDED = ENDED | {"skipped"}


def ends_have_events(view: View) -> Iterator[Found]:
    """Yield ended tasks and runs whose end has no event, or another one than the row says."""
    for kind, rows in (("task", view.tasks), ("run", view.runs)):
        for uid, row in rows.items():
            if row["status"] not in ENDED:
                continue
            event = view.events.get(str(row.get("ended_event")))
            if event is None:
                yield found(
                    f"{kind} {uid} is {row['status']}, and its ended_event {row.get('ended_event')} does not exist"
                )
            elif event["type"] != f"{kind}.{row['status']}":
                yield found(
                    f"{kind} {uid} is {row['status']}, but its end is told as {event['type']} {event['event_id']}"
                )


def one_end_an_attempt(view: View) -> Iterator[Found]:
    """Yield attempts that were told to have ended more than once, corrections of a failure apart.

    A completion is never corrected in a campaign: its provider gives the result together with the end.
    """
    for uid, events in view.events_by_task.items():
        ends = [event for event in events if event["type"] in END_EVENTS and not _corrects_a_failure(view, event)]
        for attempt, count in Counter(event.get("attempt") for event in ends).items():
            if count > 1:
                ids = [event["event_id"] for event in ends if event.get("attempt") == attempt]
                yield found(f"task {uid} attempt {attempt} ended {count} times: {ids}")


def runs_follow_their_steps(view: View) -> Iterator[Found]:
    """Yield runs whose end does not follow from their steps, and steps whose state is not that of their task."""
    steps = grouped(view.table("steps"), "run_id")
    for uid, run in view.runs.items():
        statuses = [str(step["status"]) for step in steps.get(uid, [])]
        if run["status"] == "completed" and set(statuses) != {"completed"}:
            yield found(f"run {uid} is completed with steps {statuses}")
        elif run["status"] == "failed" and not set(statuses) & {"failed", "cancelled"}:
            yield found(f"run {uid} is failed with steps {statuses}")
        elif run["status"] in ("pending", "in_progress") and statuses and set(statuses) <= _STEP_ENDED:
            yield found(f"run {uid} is {run['status']} with steps {statuses}")
        for step in steps.get(uid, []):
            yield from _wrong_step(view, step)


def one_delivery_a_webhook(view: View) -> Iterator[Found]:
    """Yield events that have more than one delivery to a webhook, replays apart."""
    own = [row for row in view.table("deliveries") if row.get("replay_id") is None]
    pairs = Counter((str(row["webhook_id"]), str(row["event_id"])) for row in own)
    for (webhook, event), count in pairs.items():
        if count > 1:
            yield found(f"event {event} has {count} deliveries to webhook {webhook}")


def report_adds_up(view: View) -> Iterator[Found]:
    """Yield what `ringback report` says does not add up; nothing if the command does not exist."""
    for line in view.reports:
        if line.get("status") != 0:
            yield found(f"`ringback report` exits with {line.get('status')}: {str(line.get('told'))[:300]}", line)


def _corrects_a_failure(view: View, event: Row) -> bool:
    corrected = view.events.get(str(event.get("corrects")))
    return corrected is not None and (corrected["type"], event["type"]) == ("task.failed", "task.completed")


def _wrong_step(view: View, step: Row) -> Iterator[Found]:
    task = view.tasks.get(str(step.get("task_id")))
    if task is None or task["status"] not in ENDED:
        return
    # A step whose result could not be read has failed although its task completed.
    if step["status"] != task["status"] and (step["status"], task["status"]) != ("failed", "completed"):
        yield found(f"step {step['name']} of run {step['run_id']} is {step['status']}, but its task {task['status']}")
