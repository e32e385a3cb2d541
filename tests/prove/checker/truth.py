"""Promises about the provider's word: what it reported is what the rows and events say, and nothing else is."""

from collections.abc import Iterator

from tests.prove.checker.line import Line
from tests.prove.checker.promise import Found, found
from tests.prove.checker.view import ENDED, OWN_CODES, Made, Row, View, moment_of

TRUE_KINDS = frozenset({"true", "late", "double"})
_CLOCK_TOLERANCE_SECONDS = 0.2


def acknowledged_webhooks_stand(view: View) -> Iterator[Found]:
    """Yield ends that the provider reported, got a 200 for, and that are not the ends of the rows."""
    for provider_id, (status, line) in _acknowledged_ends(view).items():
        task = view.tasks_by_provider_id.get(provider_id)
        if task is None:
            if not _has_receipt(view, provider_id):
                yield found(f"the {status} of {provider_id} was answered with 200, and no row has it", line)
        elif task.get("provider_task_id") == provider_id and not _is_at(task, status):
            yield found(f"the {status} of {provider_id} was answered with 200, yet the task is {task['status']}", line)


def answered_webhooks_are_on_disk(view: View) -> Iterator[Found]:
    """Yield ends that a webhook reported and got a 200 for, and that were stored only later, because a poll found them.

    The time of the event is compared with that of the answer, both by the wall clock; nothing is yielded where the
    service's clock was stepped.
    """
    if view.wall is None or any("clock" in line.what for line in view.of("fault")):
        return
    answered = _acknowledged_ends(view)
    for event in view.events.values():
        status, line = answered.get(str(event.get("provider_task_id")), (None, None))
        stored = moment_of(event.get("created_at"))
        if line is None or event["type"] != f"task.{status}" or event.get("source") != "poll" or stored is None:
            continue
        late = stored.timestamp() - (view.wall + line.at)
        if late > _CLOCK_TOLERANCE_SECONDS:
            name = line["provider_task_id"]
            yield found(f"the {status} of {name} was answered with 200 {late:.1f} s before a poll stored it", line)


def rows_agree_with_the_provider(view: View) -> Iterator[Found]:
    """Yield ended tasks whose end is not what the provider's own record says; our own failures are counted apart."""
    for uid, task in view.tasks.items():
        made = view.made.get(str(task.get("provider_task_id")))
        if made is None or task["status"] not in ENDED or task.get("error") in OWN_CODES:
            continue
        if task["status"] not in made.statuses:
            text = f"task {uid} is {task['status']}, but at the provider {made.id} is {sorted(made.statuses) or 'open'}"
            yield found(text, made.line, *made.ends)


def events_agree_with_the_provider(view: View) -> Iterator[Found]:
    """Yield events of an end that the provider did not give, or gave to another attempt."""
    for event in view.events.values():
        made = view.made.get(str(event.get("provider_task_id")))
        if made is None or not str(event["type"]).startswith("task."):
            continue
        yield from _wrong_end(event, made)
        yield from _wrong_attempt(event, made)


def forged_is_refused(view: View) -> Iterator[Found]:
    """Yield forged webhooks that were accepted."""
    for line in view.of("provider", "webhook"):
        answer = line.get("answer")
        if line.get("kind") == "forged" and answer is not None and 200 <= int(answer) < 300:
            yield found(f"a forged webhook for {line['provider_task_id']} was answered with {answer}", line)


def false_failures(view: View) -> list[Row]:
    """Return the tasks that are failed although the provider completed their present attempt."""
    return [task for task in view.tasks.values() if _is_false_failure(view, task)]


def healed(view: View) -> list[Row]:
    """Return the events that corrected an end to `completed`."""
    return [event for event in view.events.values() if event["type"] == "task.completed" and event.get("corrects")]


def _is_false_failure(view: View, task: Row) -> bool:
    if task["status"] != "failed":
        return False
    return any(
        "completed" in made.statuses and made.attempt == task["attempt"]
        for made in view.made.values()
        if made.task_id == task["task_id"] or (made.task_id is None and made.mark == task.get("mark"))
    )


def _acknowledged_ends(view: View) -> dict[str, tuple[str, Line]]:
    """Return the end of each provider's task that was answered with 2xx, the first; `completed` wins over another."""
    ends: dict[str, tuple[str, Line]] = {}
    for line in view.of("provider", "webhook"):
        status, answer = str(line.get("status")), line.get("answer")
        if line.get("kind") not in TRUE_KINDS or status not in ENDED or answer is None or not 200 <= int(answer) < 300:
            continue
        name = str(line["provider_task_id"])
        if name not in ends or (status == "completed" != ends[name][0]):
            ends[name] = status, line
    return ends


def _is_at(task: Row, status: str) -> bool:
    return task["status"] == status or (status == "failed" and task["status"] == "completed")


def _has_receipt(view: View, provider_id: str) -> bool:
    return any(row.get("provider_task_id") == provider_id for row in view.table("receipts"))


def _wrong_end(event: Row, made: Made) -> Iterator[Found]:
    status = str(event["type"]).removeprefix("task.")
    if status in ENDED and event.get("error") not in OWN_CODES and status not in made.statuses:
        record = sorted(made.statuses) or "open"
        text = f"event {event['event_id']} says {status}, but at the provider {made.id} is {record}"
        yield found(text, made.line, *made.ends)


def _wrong_attempt(event: Row, made: Made) -> Iterator[Found]:
    attempt = event.get("attempt")
    # The event of a further attempt still names the provider's task of the one before, which failed.
    is_restart = event["type"] == "task.updated" and event.get("status") == "queued"
    if attempt is not None and int(attempt) != made.attempt and not is_restart:
        text = (
            f"event {event['event_id']} ({event['type']}) is of attempt {attempt}, but {made.id} is of {made.attempt}"
        )
        yield found(text, made.line)
    elif made.task_id is not None and event.get("task_id") not in (None, made.task_id):
        yield found(
            f"event {event['event_id']} is of task {event['task_id']}, but {made.id} of {made.task_id}", made.line
        )
