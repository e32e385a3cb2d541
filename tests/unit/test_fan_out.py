"""What is known of organizations with very many webhooks, so that their writes take turns."""

from models import EventType, SubscriptionKind
from receiver.events.fan_out import MANY_WEBHOOKS, FanOut
from receiver.storage.transaction import Listener, NewDelivery, NewEvent
from tests.storage.rows import new_delivery, new_event


def listeners(organization: int, count: int) -> list[Listener]:
    """Return webhooks of an organization."""
    types = frozenset({str(EventType.TASK_UPDATED)})
    return [Listener(number, organization, SubscriptionKind.REGISTERED, types) for number in range(count)]


def event(organization: int, task_uid: str) -> NewEvent:
    return new_event(1, organization_id=organization, task_uid=task_uid)


def deliveries(organization: int, count: int) -> list[NewDelivery]:
    return [new_delivery(number, 1, 1, organization_id=organization) for number in range(count)]


def test_an_organization_with_few_webhooks_is_never_heavy() -> None:
    fan_out = FanOut()
    fan_out.note(listeners(1, MANY_WEBHOOKS), [event(1, "a")], deliveries(1, MANY_WEBHOOKS))
    assert fan_out.rows(1) == 0
    assert fan_out.owner("a") is None
    assert fan_out.put_off([("a", 1), None]) == {}


def test_rows_count_what_is_written_and_a_little_of_what_is_only_matched() -> None:
    fan_out = FanOut()
    fan_out.note(
        listeners(1, 400) + listeners(2, 1), [event(1, "a"), event(2, "b")], deliveries(1, 100) + deliveries(2, 1)
    )
    assert fan_out.rows(1) == 110
    assert fan_out.rows(1, events=3) == 330
    assert (fan_out.rows(2), fan_out.rows(None)) == (0, 0)
    assert (fan_out.owner("a"), fan_out.owner("b"), fan_out.owner(None)) == (1, None, None)
    fan_out.note(listeners(1, 3), [event(1, "c")], deliveries(1, 3))
    assert fan_out.rows(1) == 0


def test_an_update_of_a_task_that_was_not_known_is_put_off_once() -> None:
    fan_out = FanOut()
    fan_out.begin({1: 500})
    put_off = fan_out.put_off([("new", 1), ("theirs", 2), None, ("new", 1)])
    assert set(put_off) == {0, 3}
    assert (put_off[0].organization, put_off[0].heavy_rows) == (1, 500)
    assert fan_out.put_off([("new", 1)]) == {}
    assert fan_out.owner("new") == 1
