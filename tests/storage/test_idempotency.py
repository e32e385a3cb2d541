"""Idempotency keys in the database: one process claims the work, and its response is saved."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from receiver.domain.ids import new_id
from receiver.errors import Conflict
from receiver.storage.database import Database
from receiver.storage.idempotency import (
    KEPT,
    Claim,
    ClaimedElsewhere,
    ClaimRequest,
    ClaimResult,
    ResponseToSave,
    SavedResponse,
    bind,
    claim,
    keep,
    leased,
    move_lease,
)
from receiver.storage.leases import end_leases
from receiver.storage.tables import idempotency_keys
from tests.fakes.databases import settings_in
from tests.storage.rows import NOW

pytestmark = pytest.mark.with_locks_too

LEASE = timedelta(seconds=20)
HERE, THERE = new_id(), new_id()
"""Two processes."""
DONE = SavedResponse("the body", 200, "application/json", "encrypted")


def wanted(scope: str = "a", owner: str = HERE, **fields: Any) -> ClaimRequest:
    given = {"body": "the body", "resource_id": new_id(), "now": NOW, "lease_until": NOW + LEASE, **fields}
    return ClaimRequest(scope=scope, owner=owner, organization_id=1, **given)


async def claimed(database: Database, asked: ClaimRequest) -> ClaimResult:
    return await database.writer.write(claim, asked)


async def kept(database: Database, scope: str = "a", owner: str = HERE) -> bool:
    return await database.writer.write(keep, ResponseToSave(scope, owner, DONE))


async def test_the_first_request_claims_the_key_with_its_own_id(database: Database) -> None:
    first = wanted()
    assert await claimed(database, first) == Claim("a", first.resource_id, is_resumed=False)


async def bound(database: Database, state: str, owner: str = HERE) -> bool:
    return await database.writer.run(lambda tx: bind(tx, "a", owner, state))


async def test_a_claim_is_bound_to_the_state_that_its_first_request_found(database: Database) -> None:
    first = wanted()
    await claimed(database, first)
    assert await bound(database, "attempt 1")
    assert await bound(database, "attempt 2")  # which changes nothing
    assert not await bound(database, "attempt 1", owner=THERE)
    again = await claimed(database, wanted())
    assert again == Claim("a", first.resource_id, is_resumed=True, found_state="attempt 1")
    later = NOW + KEPT + LEASE
    new_claim = await claimed(database, wanted(now=later, lease_until=later + LEASE))
    assert isinstance(new_claim, Claim)
    assert (new_claim.is_resumed, new_claim.found_state) == (False, None)
    assert (await database.read(select(idempotency_keys.c.found_state)))[0]["found_state"] is None


async def test_another_process_waits_until_the_response_is_saved(database: Database) -> None:
    await claimed(database, wanted())
    assert await claimed(database, wanted(owner=THERE)) == ClaimedElsewhere()
    assert await database.read(leased("a", NOW))
    assert await kept(database)
    assert await claimed(database, wanted(owner=THERE)) == DONE
    assert await claimed(database, wanted()) == DONE
    assert not await database.read(leased("a", NOW))


async def test_the_same_process_resumes_its_own_claim(database: Database) -> None:
    first = wanted()
    await claimed(database, first)
    assert await claimed(database, wanted()) == Claim("a", first.resource_id, is_resumed=True)


async def test_another_process_takes_over_when_the_lease_has_ended_and_the_first_can_save_nothing(
    database: Database,
) -> None:
    first = wanted()
    await claimed(database, first)
    later = NOW + LEASE
    assert not await database.read(leased("a", later))
    found = await claimed(database, wanted(owner=THERE, now=later, lease_until=later + LEASE))
    assert found == Claim("a", first.resource_id, is_resumed=True, was_elsewhere=True)
    assert await claimed(database, wanted(now=later)) == ClaimedElsewhere()
    assert not await kept(database, owner=HERE)
    assert await kept(database, owner=THERE)
    assert not await kept(database, owner=THERE)


async def test_a_lease_is_moved_by_its_owner_only(database: Database) -> None:
    await claimed(database, wanted())
    later = NOW + LEASE
    await database.writer.run(lambda tx: move_lease(tx, "a", THERE, NOW))
    assert await claimed(database, wanted(owner=THERE)) == ClaimedElsewhere()
    await database.writer.run(lambda tx: move_lease(tx, "a", HERE, later + LEASE))
    assert await claimed(database, wanted(owner=THERE, now=later)) == ClaimedElsewhere()
    await database.writer.run(lambda tx: move_lease(tx, "a", HERE, NOW))
    assert isinstance(await claimed(database, wanted(owner=THERE)), Claim)


@pytest.mark.parametrize("is_answered", [False, True], ids=["claimed", "answered"])
async def test_another_body_is_a_conflict(database: Database, is_answered: bool) -> None:
    await claimed(database, wanted())
    if is_answered:
        await kept(database)
    for owner in (HERE, THERE):
        with pytest.raises(Conflict) as caught:
            await claimed(database, wanted(owner=owner, body="another"))
        assert caught.value.code == "idempotency_key_mismatch"
    assert await claimed(database, wanted("another scope", body="another")) != ClaimedElsewhere()


async def test_a_key_starts_over_after_24_hours_and_no_sooner(database: Database) -> None:
    first = wanted()
    await claimed(database, first)
    await kept(database)
    before = NOW + KEPT - timedelta(microseconds=1)
    assert await claimed(database, wanted(now=before)) == DONE
    reused = wanted(now=NOW + KEPT, lease_until=NOW + KEPT + LEASE, body="another")
    assert await claimed(database, reused) == Claim("a", reused.resource_id, is_resumed=False)
    (row,) = await database.read(select(idempotency_keys))
    assert (row["status"], row["answer"], row["created_at"]) == (None, None, NOW + KEPT)


async def test_work_of_24_hours_is_not_taken_over_while_its_lease_lasts(database: Database) -> None:
    await claimed(database, wanted(lease_until=NOW + KEPT + LEASE))
    assert await claimed(database, wanted(owner=THERE, now=NOW + KEPT)) == ClaimedElsewhere()


async def test_many_claims_share_a_batch_and_each_gets_its_own_result(database: Database) -> None:
    await claimed(database, wanted("busy", THERE))
    await claimed(database, wanted("answered"))
    await kept(database, "answered")
    await claimed(database, wanted("other body"))
    asked = [wanted(str(number)) for number in range(20)]
    others = [wanted("busy"), wanted("answered"), wanted("other body", body="another")]
    results: list[Any] = await asyncio.gather(
        *(claimed(database, each) for each in [*others, *asked]), return_exceptions=True
    )
    assert results[:2] == [ClaimedElsewhere(), DONE]
    assert isinstance(results[2], Conflict)
    assert results[3:] == [Claim(each.scope, each.resource_id, is_resumed=False) for each in asked]
    answers = [ResponseToSave(each.scope, HERE, replace(DONE, answer=each.scope)) for each in asked]
    mixed = [*answers, ResponseToSave("busy", HERE, DONE), ResponseToSave("unknown", HERE, DONE)]
    assert await asyncio.gather(*(database.writer.write(keep, each) for each in mixed)) == [True] * 20 + [False] * 2
    again = await asyncio.gather(*(claimed(database, each) for each in asked))
    assert again == [each.kept for each in answers]


async def test_the_start_of_the_only_process_ends_all_leases(database: Database) -> None:
    first = wanted()
    await claimed(database, first)
    await database.writer.run(lambda tx: end_leases(tx, NOW))
    taken_over = Claim("a", first.resource_id, is_resumed=True, was_elsewhere=True)
    assert await claimed(database, wanted(owner=THERE)) == taken_over


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[list[Database]]:
    """One database, as two processes open it."""
    settings = settings_in(tmp_path)
    async with await Database.open(settings) as here, await Database.open(settings) as there:
        yield [here, there]


@pytest.mark.postgresql_only("several processes share one database")
async def test_of_two_processes_at_once_one_claims_the_key(replicas: list[Database]) -> None:
    for number in range(30):
        scope = str(number)
        asked = [wanted(scope, HERE), wanted(scope, THERE)]
        found = await asyncio.gather(*(claimed(*pair) for pair in zip(replicas, asked, strict=True)))
        assert ClaimedElsewhere() in found
        assert [each.is_resumed for each in found if isinstance(each, Claim)] == [False]
    rows = await replicas[0].read(select(idempotency_keys.c.id))
    assert len(rows) == 30
