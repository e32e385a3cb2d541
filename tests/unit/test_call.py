"""What a request is taken for: the ids of what it creates follow from its idempotency key, its cost from its body."""

from typing import Any

from starlette.requests import Request

from receiver.api.endpoint import Call, cost_of
from receiver.domain.ids import is_id, new_id
from receiver.storage.idempotency import Claim

NOTHING: Any = None


def ids(claim: Claim | None, number: int) -> list[str]:
    call = Call(NOTHING, NOTHING, NOTHING, claim)
    return [call.new_id() for _ in range(number)]


def test_all_requests_with_one_claim_make_the_same_ids_in_the_same_order() -> None:
    first, other = (Claim("scope", new_id(), is_resumed=False) for _ in range(2))
    made = ids(first, 1000)
    assert made == ids(Claim("scope", first.resource_id, is_resumed=True), 1000)
    assert made[0] == first.resource_id
    assert made[1:] == sorted(made[1:])
    assert len({*made, *ids(other, 1000)}) == 2000


def test_without_a_key_each_id_is_new() -> None:
    assert len({*ids(None, 10), *ids(None, 10)}) == 20
    assert all(map(is_id, ids(None, 10)))


def test_only_a_claim_that_an_earlier_request_left_is_resumed() -> None:
    for claim, is_resumed in (
        (None, False),
        (Claim("scope", new_id(), is_resumed=False), False),
        (Claim("scope", new_id(), is_resumed=True), True),
    ):
        assert Call(NOTHING, NOTHING, NOTHING, claim).is_resumed is is_resumed


def test_a_body_costs_as_much_as_is_read_of_it_whatever_length_is_declared() -> None:
    most = 1_000_000

    def cost(length: str) -> float:
        scope = {"type": "http", "method": "POST", "headers": [(b"content-length", length.encode())]}
        return cost_of(Request(scope), most)

    assert cost("0") == cost("many") < cost("100000") < cost(str(most))
    assert cost("9" * 18) == cost(str(most))
