"""What a report of delivery can find wrong: each kind of gap, and what it means."""

from collections.abc import Mapping
from enum import StrEnum


class GapKind(StrEnum):
    """A row that is missing, or that contradicts another. None of them ever happens in the service's own writes."""

    END_EVENT_MISSING = "end_event_missing"
    END_EVENTS_DIFFER = "end_events_differ"
    CREATED_EVENT_MISSING = "created_event_missing"
    TASK_NOT_DUE = "task_not_due"
    RUN_END_EVENT_MISSING = "run_end_event_missing"
    RUN_CREATED_EVENT_MISSING = "run_created_event_missing"
    RUN_STANDS_STILL = "run_stands_still"
    RUN_STEP_OPEN = "run_step_open"
    RUN_STEP_DIFFERS = "run_step_differs"
    DELIVERY_MISSING = "delivery_missing"
    DELIVERY_DOUBLED = "delivery_doubled"
    DELIVERY_NOT_DUE = "delivery_not_due"
    DELIVERY_CANCELLED = "delivery_cancelled"
    DELIVERY_UNPROVEN = "delivery_unproven"


MEANINGS: Mapping[GapKind, str] = {
    GapKind.END_EVENT_MISSING: "the task has ended, and its row names no event of that end",
    GapKind.END_EVENTS_DIFFER: "the task has more or fewer events of its end than ends, corrections and retries",
    GapKind.CREATED_EVENT_MISSING: "the task was created here, and not exactly one event tells that",
    GapKind.TASK_NOT_DUE: "the task has not ended, and no process is to act on it",
    GapKind.RUN_END_EVENT_MISSING: "the run has ended, and no event of its own tells that end",
    GapKind.RUN_CREATED_EVENT_MISSING: "not exactly one event tells that the run was created",
    GapKind.RUN_STANDS_STILL: "the run has not ended, and none of its steps is under way",
    GapKind.RUN_STEP_OPEN: "the run has completed or failed, and one of its steps has not ended",
    GapKind.RUN_STEP_DIFFERS: "a step of the run has another state than its task, or its task is missing",
    GapKind.DELIVERY_MISSING: "the subscription matches the event, and there is no delivery of it",
    GapKind.DELIVERY_DOUBLED: "the subscription has more than one delivery of the event, replays apart",
    GapKind.DELIVERY_NOT_DUE: "the delivery is pending and its subscription is active, but it is never due",
    GapKind.DELIVERY_CANCELLED: "the delivery is cancelled, though neither its subscription was removed nor a replay",
    GapKind.DELIVERY_UNPROVEN: "the delivery counts as delivered, and no attempt of it was answered with a 2xx",
}
