"""What an `Idempotency-Key` may cost: bounded responses, and a bounded number of keys for each organization."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from starlette.responses import Response

from receiver.api.idempotency import MOST_SAVED_BYTES, Idempotency, IdempotentRequest
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.errors import RateLimited
from receiver.organization_limits import OrganizationLimits
from receiver.storage.database import Database
from receiver.storage.idempotency import Claim
from receiver.storage.tables import idempotency_keys
from tests.fakes.databases import settings_in
from tests.fakes.world import World

KEYRING = KeyRing(["a-master-key-for-tests"])
MOST = 3


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with await Database.open(settings_in(tmp_path)) as database:
        yield database


def unlimited(_organization_id: int) -> OrganizationLimits:
    return OrganizationLimits(idempotency_keys=None)


def limited(organization_id: int) -> OrganizationLimits:
    return OrganizationLimits(idempotency_keys=MOST if organization_id == 1 else None)


class Work:
    """Work whose response has `size` bytes; `claims` are the claims that it was done with."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.claims: list[Claim] = []

    async def __call__(self, claim: Claim) -> Response:
        self.claims.append(claim)
        return Response(b"x" * self.size, media_type="application/json")


def asked(key: str, organization_id: int = 1) -> IdempotentRequest:
    return IdempotentRequest.of(organization_id, "POST /x", key, b"{}")


@pytest.mark.parametrize(("size", "is_saved"), [(MOST_SAVED_BYTES, True), (MOST_SAVED_BYTES + 1, False)])
async def test_a_large_response_is_not_saved_and_a_repetition_is_resumed(
    database: Database, size: int, is_saved: bool
) -> None:
    idempotency, work = Idempotency(database, KEYRING, unlimited), Work(size)
    for _ in range(2):
        response = await idempotency.once(asked("a"), work)
        assert isinstance(response, Response)
        assert len(response.body) == size
    saved = (await database.read(select(func.length(idempotency_keys.c.answer).label("size"))))[0]["size"]
    assert (saved is not None) == is_saved
    assert [claim.is_resumed for claim in work.claims] == ([False] if is_saved else [False, True])
    assert len({claim.resource_id for claim in work.claims}) == 1, "what it creates has the same id"


async def test_a_task_with_a_large_answer_is_made_once_and_shown_as_it_is_now(world: World) -> None:
    body = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "x" * MOST_SAVED_BYTES}}
    answers = [await world.api.post("/api/v1/task", json=body, headers={"idempotency-key": "large"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({answer.json()["data"]["task_id"] for answer in answers}) == 1
    assert (await world.provider_stats())["created"] == 1
    other = await world.api.post("/api/v1/task", json={**body, "model": "x"}, headers={"idempotency-key": "large"})
    assert other.status_code == 409


async def test_an_organization_has_a_most_of_keys_and_repetitions_are_answered_all_the_same(
    database: Database,
) -> None:
    idempotency, work = Idempotency(database, KEYRING, limited), Work()
    refused: RateLimited | None = None
    for number in range(100):
        try:
            await idempotency.once(asked(str(number)), work)
        except RateLimited as error:
            refused = error
            break
        await asyncio.sleep(0)
    assert refused is not None
    assert (refused.code, refused.param) == ("organization_rate_limited", "idempotency_keys")
    assert "idempotency_keys" in refused.message
    made = len(work.claims)
    assert MOST <= made < 50, "it is counted in the background"
    assert isinstance(await idempotency.once(asked("0"), work), Response)
    assert len(work.claims) == made
    await idempotency.once(asked("0", organization_id=2), work)
    rows = await database.read(select(func.count().label("count")).where(idempotency_keys.c.organization_id == 1))
    assert rows[0]["count"] == made


async def test_keys_of_an_earlier_process_count(database: Database) -> None:
    first, work = Idempotency(database, KEYRING, unlimited), Work()
    for _ in range(MOST):
        await first.once(asked(new_id()), work)
    later = Idempotency(database, KEYRING, limited)

    async def use_many() -> None:
        for _ in range(20):
            await later.once(asked(new_id()), work)

    with pytest.raises(RateLimited):
        await use_many()
