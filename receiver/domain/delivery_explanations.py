"""Why a delivery is in its state, and what happens to it next. Pure functions of its row and of a few facts."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from models import DeliveryStatus, DisabledReason
from receiver.domain.explanations import Act, Blocker, Explanation, NextAct
from receiver.domain.representations import Fields

_DISABLED_BY = {
    DisabledReason.GONE: "its endpoint answered 410, so Ringback switched the webhook off",
    DisabledReason.FAILING: "every attempt failed for five days, so Ringback switched the webhook off",
}


class DeliveryFacts(Struct, frozen=True, kw_only=True):
    """What an explanation of a delivery needs besides its row.

    `delays` are the seconds before each attempt. `queued_before` counts the deliveries of the same webhook that are due
    before it, and `earlier` is the id of the delivery of the same task that an ordered webhook has to get first.
    """

    now: datetime
    delays: Sequence[float]
    queued_before: int = 0
    earlier: str | None = None


def explain_delivery(delivery: Fields, facts: DeliveryFacts) -> Explanation:
    """Return why a delivery is in its state; `delivery` is its row with its last attempt and its subscription's state.

    The columns of the subscription: `is_active`, `deleted_at`, `disabled_reason`, `failing_since`, `rate_limit`,
    `max_in_flight`.
    """
    is_pending = delivery["status"] == DeliveryStatus.PENDING
    act, blocked_by = (
        _pending(delivery, facts) if is_pending else (NextAct(Act.NONE, None, "nothing: it is settled"), [])
    )
    return Explanation(
        status=delivery["status"],
        reason=_reason(delivery, facts),
        next=act,
        blocked_by=blocked_by,
        may=_may(delivery),
        facts=_facts(delivery, facts),
    )


def _reason(delivery: Fields, facts: DeliveryFacts) -> str:
    made, left = delivery["attempt"], _left(delivery, facts)
    match delivery["status"]:
        case DeliveryStatus.DELIVERED:
            return f"the subscriber accepted it{_answer(delivery)}, at attempt {made}"
        case DeliveryStatus.DEAD:
            return f"every attempt of its schedule failed, {made} in all; the last one{_failure(delivery)}"
        case DeliveryStatus.CANCELLED:
            return "its webhook was removed" if delivery["deleted_at"] is not None else "its replay was cancelled"
        case _ if _is_tried(delivery) and _has_outcome(delivery):
            return f"attempt {_ended_attempts(delivery)}{_failure(delivery)}; {left} are left"
        case _:
            return "it has not been sent yet"


def _pending(delivery: Fields, facts: DeliveryFacts) -> tuple[NextAct, list[Blocker]]:
    act = Act.RETRY if _is_tried(delivery) else Act.DELIVER
    if not delivery["is_active"]:
        return NextAct(act, None, "it is sent when the webhook is switched on again"), [_disabled(delivery)]
    due_at = delivery["due_at"]
    if due_at is None:
        text = "it has no time at which it is sent; `ringback report` lists such deliveries"
        return NextAct(Act.NONE, None, text), [Blocker("not_due", text)]
    if delivery["leased"] and due_at > facts.now:
        text = "a process holds it: it is being sent, or waits in memory for its turn"
        blocker = Blocker("sending", text, {"until": due_at, **_limits(delivery)})
        return NextAct(act, facts.now, "the answer of its endpoint is written"), [blocker]
    blocked_by = []
    if facts.earlier is not None:
        text = f"the webhook is ordered, and delivery {facts.earlier} of the same task is not settled"
        blocked_by.append(Blocker("earlier_delivery", text, {"delivery_id": facts.earlier}))
    if due_at > facts.now:
        text = "the wait of the retry schedule, or what the endpoint asked for with Retry-After"
        blocked_by.append(Blocker("retry_backoff", text, {"until": due_at}))
    else:
        text = f"{facts.queued_before} deliveries of the same webhook are due before it"
        blocked_by.append(Blocker("endpoint_queue", text, {"before": facts.queued_before, **_limits(delivery)}))
    if delivery["failing_since"] is not None:
        text = "every attempt at the endpoint has failed since then, so few are made at once"
        blocked_by.append(Blocker("endpoint_failing", text, {"since": delivery["failing_since"]}))
    at = None if facts.earlier is not None else max(due_at, facts.now)
    return NextAct(act, at, "the next attempt is made"), blocked_by


def _disabled(delivery: Fields) -> Blocker:
    why = _DISABLED_BY.get(delivery["disabled_reason"], "the webhook is switched off")
    return Blocker("webhook_disabled", why, {"webhook_id": delivery["webhook_uid"]})


def _may(delivery: Fields) -> list[str]:
    if not delivery["is_active"]:
        is_kept = delivery["webhook_uid"] is not None and delivery["deleted_at"] is None
        return ["enable_webhook"] if is_kept else []
    return [] if delivery["status"] == DeliveryStatus.PENDING else ["retry"]


def _facts(delivery: Fields, facts: DeliveryFacts) -> dict[str, object]:
    return {
        "webhook_id": delivery["webhook_uid"],
        "attempt_count": delivery["attempt"],
        "attempts_left": _left(delivery, facts) if delivery["status"] == DeliveryStatus.PENDING else 0,
        "last_status_code": delivery["status_code"],
        "last_error": delivery["error"],
        "created_at": delivery["created_at"],
        "settled_at": delivery["settled_at"],
    }


def _limits(delivery: Fields) -> dict[str, object]:
    return {name: delivery[name] for name in ("max_in_flight", "rate_limit")}


def _is_tried(delivery: Fields) -> bool:
    return _ended_attempts(delivery) > int(delivery["schedule_from"])


def _ended_attempts(delivery: Fields) -> int:
    """Return how many attempts were begun and are not under way."""
    return int(delivery["attempt"]) - bool(delivery["leased"] and delivery["status"] == DeliveryStatus.PENDING)


def _left(delivery: Fields, facts: DeliveryFacts) -> int:
    """Return how many attempts the present schedule has left."""
    return max(0, len(facts.delays) - (_ended_attempts(delivery) - int(delivery["schedule_from"])))


def _has_outcome(delivery: Fields) -> bool:
    return delivery["status_code"] is not None or delivery["error"] is not None


def _answer(delivery: Fields) -> str:
    return f" with HTTP {delivery['status_code']}" if delivery["status_code"] is not None else ""


def _failure(delivery: Fields) -> str:
    if delivery["error"] is not None:
        return f" failed: {delivery['error']}"
    return f" was answered with HTTP {delivery['status_code']}" if delivery["status_code"] is not None else " failed"
