"""Queries for how things stand now: open tasks, what is due, and the webhooks. None reads more rows than it says.

They read the rows themselves, through indexes, for a sum that is some seconds old is no answer to what is due now.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    Select,
    String,
    TextualSelect,
    and_,
    bindparam,
    case,
    func,
    not_,
    select,
    text,
)

from models import DeliveryStatus, SubscriptionKind
from models.columns import Moment, PublicId
from receiver.storage.samples import DUE_TASKS, MOST_COUNTED, OPEN_TASKS
from receiver.storage.tables import subscriptions, tasks

MOST_WEBHOOKS = 1000
"""Of how many webhooks, the newest, the backlog is looked at."""
MOST_PENDING = 1000
"""Up to how many pending deliveries of one webhook are counted."""


def open_tasks(organization_id: int, model: str | None) -> Select[Any]:
    """Return the query for the numbers of tasks in each open state, up to `MOST_COUNTED` of each, by the state."""
    is_ours: ColumnElement[bool] = tasks.c.organization_id == organization_id
    if model is not None:
        is_ours = and_(is_ours, tasks.c.model == model)
    counts = []
    for status in OPEN_TASKS:
        found = select(tasks.c.id).where(is_ours, tasks.c.status == status).limit(MOST_COUNTED).subquery()
        counts.append(select(func.count()).select_from(found).scalar_subquery().label(status))
    return select(*counts)


def oldest_due_task() -> TextualSelect:
    """Return the query for when the task that is due for longest became due, as `oldest`; null if none is.

    Its parameters are `organization` and `now`. The conditions of partial indexes stand in the text as they are.
    """
    conditions = [each for conditions in DUE_TASKS.values() for each in conditions]
    parts = " UNION ALL ".join(
        f"SELECT (SELECT min(due_at) FROM task WHERE organization_id = :organization AND {each} AND due_at <= :now) "
        "AS due_at"
        for each in conditions
    )
    query = text(f"SELECT min(due_at) AS oldest FROM ({parts}) AS parts").bindparams(bindparam("now", type_=Moment()))
    return query.columns(oldest=Moment())


def webhook_backlogs(*, chosen: bool = False) -> TextualSelect:
    """Return the query for webhooks that fail, are off, or have deliveries pending, the oldest due first.

    Its parameters are `organization` and `most`, and where they are `chosen` the row keys `subscriptions` of the
    webhooks that are looked at alone, however they stand. Columns: id, uid, endpoint_url, is_active, disabled_reason,
    failing_since, next_due (of the delivery that is due first), and pending: how many wait, up to `MOST_PENDING`. Those
    of a webhook that is off are counted among its `MOST_PENDING` newest deliveries alone.
    """
    of_webhook = "SELECT {} FROM delivery WHERE delivery.subscription_id = webhook.id"
    waiting = f"{of_webhook.format('1')} AND due_at IS NOT NULL LIMIT {MOST_PENDING}"
    newest = f"{of_webhook.format('status')} ORDER BY id DESC LIMIT {MOST_PENDING}"
    kept = f"SELECT count(*) FROM ({newest}) AS newest WHERE status = '{DeliveryStatus.PENDING}'"
    stands_out = "next_due IS NOT NULL OR failing_since IS NOT NULL OR NOT is_active"
    query = f"""
        WITH webhook AS (
            SELECT id, uid, endpoint_url, is_active, disabled_reason, failing_since FROM subscription
            WHERE organization_id = :organization AND kind = '{SubscriptionKind.REGISTERED}' AND deleted_at IS NULL
            {"AND id IN :subscriptions" if chosen else ""} ORDER BY id DESC LIMIT {MOST_WEBHOOKS}
        ), standing AS (
            SELECT webhook.*, ({of_webhook.format("min(due_at)")} AND due_at IS NOT NULL) AS next_due FROM webhook
        ), shown AS (
            SELECT * FROM standing WHERE {"true" if chosen else stands_out}
            ORDER BY next_due IS NULL, next_due, id LIMIT :most
        )
        SELECT id, uid, endpoint_url, is_active, disabled_reason, failing_since, next_due,
            CASE WHEN is_active THEN (SELECT count(*) FROM ({waiting}) AS found) ELSE ({kept}) END AS pending
        FROM shown AS webhook ORDER BY next_due IS NULL, next_due, id
    """
    found = text(query)
    if chosen:
        found = found.bindparams(bindparam("subscriptions", expanding=True))
    return found.columns(
        id=BigInteger(),
        uid=PublicId(),
        endpoint_url=String(),
        is_active=Boolean(),
        disabled_reason=String(),
        failing_since=Moment(),
        next_due=Moment(),
        pending=BigInteger(),
    )


def faulty_webhooks(organization_id: int) -> Select[Any]:
    """Return the query for the numbers of webhooks that are `failing`, and that Ringback has `disabled`.

    Of the newest `MOST_WEBHOOKS` at most.
    """
    table = subscriptions.c
    is_there = (
        table.organization_id == organization_id,
        table.kind == SubscriptionKind.REGISTERED,
        table.deleted_at.is_(None),
    )
    columns = (table.is_active, table.failing_since, table.disabled_reason)
    newest = select(*columns).where(*is_there).order_by(table.id.desc()).limit(MOST_WEBHOOKS).subquery().c
    is_failing = and_(newest.is_active, newest.failing_since.is_not(None))
    is_disabled = and_(not_(newest.is_active), newest.disabled_reason.is_not(None))
    conditions = {"failing": is_failing, "disabled": is_disabled}
    counts: list[Any] = [func.count(case((each, 1))).label(name) for name, each in conditions.items()]
    return select(*counts)


def provider_use() -> TextualSelect:
    """Return the query for how long each provider is paused, and how far its calls are reserved, in seconds.

    Only PostgreSQL has the rows, by whose clock they are.
    """
    seconds = (
        f"CASE WHEN {name} > clock_timestamp() THEN extract(epoch FROM {name} - clock_timestamp())::float8 ELSE 0 END"
        for name in ("paused_until", "next_at")
    )
    paused, reserved = seconds
    query = text(f"SELECT provider, {paused} AS paused, {reserved} AS reserved FROM provider_budget")
    return query.columns(provider=String(), paused=Float(), reserved=Float())
