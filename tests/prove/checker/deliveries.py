"""Promises about subscribers: everything that matches is told, under one id, signed, in order where that is asked."""

from collections import defaultdict
from collections.abc import Iterator

from tests.prove.checker.line import Line
from tests.prove.checker.promise import Found, found
from tests.prove.checker.view import Row, View


def everything_is_told(view: View) -> Iterator[Found]:
    """Yield events that a matching webhook has not acknowledged, unless it was given up or switched off."""
    told = _acknowledged(view)
    given_up = {
        (str(row["webhook_id"]), str(row["event_id"]))
        for row in view.table("deliveries")
        if row["status"] in ("dead", "cancelled")
    }
    for uid, webhook in view.registered.items():
        if not webhook.get("is_active", True):
            continue
        for event in _wanted_events(view, uid, webhook):
            pair = uid, str(event["event_id"])
            if (str(webhook["name"]), pair[1]) not in told and pair not in given_up:
                text = (
                    f"{webhook['name']} has not acknowledged {event['type']} {event['event_id']} of {_subject(event)}"
                )
                yield found(text)


def delivered_was_received(view: View) -> Iterator[Found]:
    """Yield deliveries that the table calls delivered, and that the subscriber never acknowledged."""
    told = _acknowledged(view)
    for row in view.table("deliveries"):
        webhook = view.webhooks.get(str(row["webhook_id"]))
        if webhook is None or row["status"] != "delivered":
            continue
        if (str(webhook["name"]), str(row["event_id"])) not in told:
            yield found(f"event {row['event_id']} counts as delivered to {webhook['name']}, which never had it")


def told_under_one_id(view: View) -> Iterator[Found]:
    """Yield what subscribers received under an id that no event has, or as something else than the event."""
    for line in view.of("subscriber"):
        if line.what != "received" or line.get("type") == "ping":
            continue
        event = view.events.get(str(line.get("event_id")))
        if event is None:
            yield found(
                f"{line.who} received {line.get('type')} under {line.get('event_id')}, which no event has", line
            )
        elif line.get("type") not in (None, event["type"]) or _is_of_another(line, event):
            yield found(f"{line.who} received {event['event_id']} as {line.get('type')} of {line.get('task_id')}", line)


def every_delivery_is_signed(view: View) -> Iterator[Found]:
    """Yield deliveries whose signature does not verify."""
    for line in view.of("subscriber", "received"):
        if line.get("ok") is False:
            yield found(f"{line.who} received {line.get('event_id')} with a wrong signature", line)


def ordered_is_in_order(view: View) -> Iterator[Found]:
    """Yield older events that an ordered webhook received after it had acknowledged a later one of the same task."""
    ordered = {
        str(row["name"]) for uid, row in view.registered.items() if row.get("ordered") and not _replayed(view, uid)
    }
    newest: dict[tuple[str, str], tuple[int, Line]] = {}
    for line in view.of("subscriber", "received"):
        event = view.events.get(str(line.get("event_id")))
        name = line.who.partition(":")[2]
        if event is None or name not in ordered or event.get("task_id") is None:
            continue
        about = name, str(event["task_id"])
        sequence = int(event["sequence"])
        later = newest.get(about)
        if later is not None and sequence < later[0]:
            yield found(f"{name} received {event['type']} {event['event_id']} after a later event", later[1], line)
        elif is_accepted(line):
            newest[about] = sequence, line


def repeats(view: View) -> int:
    """Return how often a subscriber received an event again that it had acknowledged."""
    had: set[tuple[str, str]] = set()
    count = 0
    for line in view.of("subscriber", "received"):
        pair = line.who, str(line.get("event_id"))
        count += pair in had
        if is_accepted(line):
            had.add(pair)
    return count


def is_accepted(line: Line) -> bool:
    """Whether a subscriber answered what it received with a 2xx."""
    answer = line.get("answer")
    return answer is not None and 200 <= int(answer) < 300


def _acknowledged(view: View) -> set[tuple[str, str]]:
    return {
        (line.who.partition(":")[2], str(line.get("event_id")))
        for line in view.of("subscriber", "received")
        if is_accepted(line)
    }


def _wanted_events(view: View, uid: str, webhook: Row) -> Iterator[Row]:
    """Yield the events that a webhook must be told of: those that match, of what was asked for after it existed."""
    types = webhook.get("event_types")
    registered = _owed_from(view, uid)
    for event in view.events.values():
        if types and event["type"] not in types:
            continue
        if not _matches(view, webhook.get("filters"), event):
            continue
        began = _creation(view, event)
        if registered is not None and (registered == 0 or (began is not None and began.n > registered)):
            yield event


def _owed_from(view: View, uid: str) -> int | None:
    """Return the line after which what is asked for is owed to a webhook: that of the answer that registered it.

    0 means everything: the webhook is older than the history, or everything was sent again to it at its client's
    request. None means nothing: the answer that names it was lost.
    """
    if any(call.target == uid and call.is_acknowledged for call in view.calls_of("replay")):
        return 0
    calls = [call for call in view.calls_of("webhook") if uid in call.ids]
    answers = [call.answered.n for call in calls if call.answered is not None and call.is_acknowledged]
    return min(answers) if answers else None


def _creation(view: View, event: Row) -> Line | None:
    """Return the line at which what the event is about was asked for first."""
    task = view.tasks.get(str(event.get("task_id")))
    run = view.runs.get(str(event.get("run_id")))
    for row in (run, task):
        call = None if row is None else view.created_by(row.get("mark"))
        if call is not None:
            return call.began
    return None


def _matches(view: View, filters: object, event: Row) -> bool:
    """Return whether an event passes a webhook's filters; only those by model and task type are known here."""
    if not isinstance(filters, dict) or not any(filters.values()):
        return True
    task = view.tasks.get(str(event.get("task_id")))
    if task is None:
        return False
    wanted = {name: values for name, values in filters.items() if values}
    return all(name in ("model", "task_type") and task.get(name) in values for name, values in wanted.items())


def _is_of_another(line: Line, event: Row) -> bool:
    return line.get("task_id") is not None and event.get("task_id") not in (None, line["task_id"])


def _replayed(view: View, uid: str) -> bool:
    return any(call.target == uid for call in view.calls_of("replay"))


def _subject(event: Row) -> str:
    return str(event.get("task_id") or event.get("run_id"))


def deliveries_by_status(view: View) -> dict[str, int]:
    """Return how many deliveries have each status at the end."""
    counts: dict[str, int] = defaultdict(int)
    for row in view.table("deliveries"):
        counts[str(row["status"])] += 1
    return dict(counts)
