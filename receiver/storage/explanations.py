"""What explanations of tasks and deliveries are made of: their rows without documents, and what is before them."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, and_, literal_column, select

from models import DeliveryStatus, Submission
from models.columns import DocumentType
from receiver.storage.bounded_count import count_up_to
from receiver.storage.deliveries import delivery_by_id
from receiver.storage.tables import deliveries, subscriptions, tasks
from receiver.storage.tasks import task_by_id
from receiver.storage.transaction import Values

MOST_BEFORE = 1000
"""Up to this many tasks or deliveries before one are counted."""
_EXPLAINING = [each for each in tasks.c if not isinstance(each.type, DocumentType) or each.name in ("error", "words")]
_ENDPOINT = ("is_active", "deleted_at", "disabled_reason", "failing_since", "ordered", "rate_limit", "max_in_flight")


def task_to_explain(organization_id: int, task_id: str) -> Select[Any]:
    """Return the query for one task, by Ringback's id or the provider's, without documents but for its error."""
    return task_by_id(organization_id, task_id).with_only_columns(*_EXPLAINING)


def tasks_to_explain(organization_id: int, uids: Collection[str]) -> Select[Any]:
    """Return the query for several tasks, by Ringback's ids, with the same columns."""
    return select(*_EXPLAINING).where(tasks.c.organization_id == organization_id, tasks.c.uid.in_(uids))


def input_of(uid: str) -> Select[Any]:
    """Return the query for the input of a task."""
    return select(tasks.c.input).where(tasks.c.uid == uid)


def tasks_queued_before(task: Values) -> Select[Any]:
    """Return the query that counts the tasks of the same send queue that are due before this one, up to `MOST_BEFORE`.

    The submission is no parameter: only so an index of what waits to be sent can be used.
    """
    is_unsent = tasks.c.submission == literal_column(f"'{Submission.WAITING.value}'")
    of_queue = and_(tasks.c.organization_id == task["organization_id"], tasks.c.bulk.is_(bool(task["bulk"])))
    is_before = and_(is_unsent, of_queue, tasks.c.due_at.is_not(None), tasks.c.due_at < task["due_at"])
    return count_up_to(MOST_BEFORE, tasks.c.id, is_before)


def delivery_to_explain(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one delivery, with its last attempt and the state of its subscription."""
    return delivery_by_id(organization_id, uid).add_columns(*(subscriptions.c[name] for name in _ENDPOINT))


def deliveries_queued_before(delivery: Values) -> Select[Any]:
    """Return the query that counts the deliveries of the same subscription that are due before, up to `MOST_BEFORE`."""
    of_endpoint = and_(deliveries.c.subscription_id == delivery["subscription_id"], deliveries.c.due_at.is_not(None))
    return count_up_to(MOST_BEFORE, deliveries.c.id, and_(of_endpoint, deliveries.c.due_at < delivery["due_at"]))


def earlier_delivery(delivery: Values) -> Select[Any]:
    """Return the query for the id of the first pending delivery before this of the same task and subscription."""
    of_both = (deliveries.c.subscription_id == delivery["subscription_id"], deliveries.c.task_id == delivery["task_id"])
    is_before = (deliveries.c.status == DeliveryStatus.PENDING, deliveries.c.id < delivery["id"])
    return select(deliveries.c.uid).where(*of_both, *is_before).order_by(deliveries.c.id).limit(1)
