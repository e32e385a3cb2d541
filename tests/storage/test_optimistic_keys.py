"""Idempotency keys on PostgreSQL: new ones are claimed, and responses saved, by one statement each, without locks."""

import asyncio
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from receiver.domain.ids import new_id
from receiver.errors import Conflict, OutcomeUnknown
from receiver.storage.database import Database
from receiver.storage.idempotency import (
    Claim,
    ClaimedElsewhere,
    ClaimRequest,
    ResponseToSave,
    SavedResponse,
    claim,
    keep,
)
from receiver.storage.postgresql.one_statement import MARK
from receiver.storage.tables import idempotency_keys
from tests.fakes.sent_statements import cut, statements
from tests.storage.optimistic_batches import Steps, counted, new_task
from tests.storage.rows import NOW, add_organization

pytestmark = pytest.mark.postgresql_only("SQLite has one writer, which needs no locks")

HERE, THERE = new_id(), new_id()
"""Two processes."""
DONE = SavedResponse("the body", 200, "application/json", "encrypted")


def wanted(scope: str, **fields: Any) -> ClaimRequest:
    given: dict[str, Any] = {
        "body": "the body",
        "owner": HERE,
        "organization_id": 1,
        "now": NOW,
        "lease_until": NOW.replace(hour=5),
    }
    return ClaimRequest(scope=scope, resource_id=new_id(), **(given | fields))


def new(request: ClaimRequest) -> Claim:
    return Claim(request.scope, request.resource_id, is_resumed=False)


async def claimed(database: Database, *given: ClaimRequest) -> list[Any]:
    return await asyncio.gather(*(database.writer.write(claim, each) for each in given), return_exceptions=True)


async def kept(database: Database, *scopes: str, owner: str = HERE) -> list[bool]:
    answers = (ResponseToSave(scope, owner, replace(DONE, answer=scope)) for scope in scopes)
    return await asyncio.gather(*(database.writer.write(keep, each) for each in answers))


async def rows_by_scope(database: Database) -> dict[str, Any]:
    return {row["scope"]: row for row in await database.read(select(idempotency_keys))}


async def test_new_keys_are_claimed_by_one_statement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [wanted(scope, body=f"body of {scope}") for scope in "cab"]
    await claimed(database, wanted("before"))  # opens the connection
    sent = statements(monkeypatch)
    with counted():
        assert await claimed(database, *asked) == [new(each) for each in asked]
    assert [query.startswith(MARK) for query in sent] == [True]
    rows = await rows_by_scope(database)
    for each in asked:
        row = rows[each.scope]
        assert (row["body"], row["resource_id"], row["owner"]) == (each.body, each.resource_id, HERE)
        assert (row["organization_id"], row["lease_until"], row["created_at"]) == (1, each.lease_until, NOW)
        assert (row["status"], row["content_type"], row["answer"], row["found_state"]) == (None, None, None, None)


async def test_responses_are_saved_by_one_statement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await claimed(database, *map(wanted, "abc"))
    sent = statements(monkeypatch)
    with counted():
        assert await kept(database, "b", "a") == [True, True]
    assert [query.startswith(MARK) for query in sent] == [True]
    rows = await rows_by_scope(database)
    saved = {scope: (row["status"], row["content_type"], row["answer"]) for scope, row in rows.items()}
    assert saved == {"a": (200, DONE.content_type, "a"), "b": (200, DONE.content_type, "b"), "c": (None, None, None)}


async def test_where_one_key_is_known_all_are_claimed_with_locks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claimed(database, wanted("answered"), wanted("busy", owner=THERE))
    await kept(database, "answered")
    asked = [wanted("a"), wanted("answered"), wanted("busy"), wanted("b")]
    sent = statements(monkeypatch)
    found = await claimed(database, *asked)
    assert found == [new(asked[0]), replace(DONE, answer="answered"), ClaimedElsewhere(), new(asked[3])]
    assert sent[0].startswith(MARK)
    assert (sent[1], sent[-1]) == ("BEGIN", "COMMIT")


async def test_where_one_claim_is_lost_the_others_are_saved_with_locks(database: Database) -> None:
    await claimed(database, wanted("a"), wanted("b", owner=THERE), wanted("c"))
    assert await kept(database, "a", "b", "unknown", "c") == [True, False, False, True]
    rows = await rows_by_scope(database)
    assert {scope: row["status"] for scope, row in rows.items()} == {"a": 200, "b": None, "c": 200}


async def test_a_response_that_is_saved_already_is_not_replaced(database: Database) -> None:
    await claimed(database, wanted("a"))
    assert await kept(database, "a") == [True]
    assert await kept(database, "a") == [False]


async def test_a_scope_that_is_twice_in_a_batch_is_saved_once_and_both_are_told(database: Database) -> None:
    await claimed(database, wanted("a"), wanted("b"))
    assert await kept(database, "a", "b", "a") == [True, True, True]
    assert (await rows_by_scope(database))["a"]["answer"] == "a"


async def test_a_key_that_another_process_inserts_meanwhile_is_claimed_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def insert(connection: asyncpg.Connection) -> None:
        await connection.execute(
            "INSERT INTO idempotency_key (scope, body, resource_id, owner, lease_until, created_at) "
            "SELECT 'a', 'the body', gen_random_uuid(), gen_random_uuid(), $1, $2",
            NOW.replace(hour=5),
            NOW,
        )

    statements(monkeypatch, insert)
    asked = wanted("b")
    assert await claimed(database, wanted("a"), asked) == [ClaimedElsewhere(), new(asked)]


async def test_a_new_key_that_may_not_be_claimed_is_refused_and_the_others_are_not(database: Database) -> None:
    refusal, asked = Conflict("too many keys"), wanted("a")
    assert await claimed(database, wanted("b", refusal=refusal), asked) == [refusal, new(asked)]
    assert set(await rows_by_scope(database)) == {"a"}


async def test_keys_and_responses_are_written_by_themselves_after_the_others_of_their_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_organization(database)
    uid = await new_task(database)
    await claimed(database, wanted("before"))
    asked = wanted("a")
    sent = statements(monkeypatch)
    with counted(stored=1):
        writes = (
            database.writer.write(claim, asked),
            database.writer.write(Steps().step, uid),
            database.writer.write(keep, ResponseToSave("before", HERE, DONE)),
        )
        assert tuple(await asyncio.gather(*writes)) == (new(asked), 1, True)
    assert [query.startswith(MARK) for query in sent] == [False, True, True, True]


@pytest.mark.parametrize("what", [claim, keep])
async def test_they_come_by_themselves_before_what_needs_locks(
    database: Database, monkeypatch: pytest.MonkeyPatch, what: Any
) -> None:
    await claimed(database, wanted("before"))
    item = wanted("a") if what is claim else ResponseToSave("before", HERE, DONE)
    sent = statements(monkeypatch)
    await asyncio.gather(database.writer.run(lambda tx: tx.load_tasks([])), database.writer.write(what, item))
    assert sent[0].startswith(MARK)
    assert (sent[1], sent[-1], len(sent)) == ("BEGIN", "COMMIT", 4)


async def test_a_claim_whose_answer_is_lost_is_found(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wanted("a")
    cut(url, monkeypatch, "after")
    assert await claimed(database, asked) == [new(asked)]


@pytest.mark.parametrize("how", ["before", "lost"])
async def test_a_claim_that_was_lost_is_unknown_and_can_be_made_again(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    cut(url, monkeypatch, how)
    (error,) = await claimed(database, wanted("a"))
    assert isinstance(error, OutcomeUnknown)
    assert not error.is_pending
    asked = wanted("a")
    assert await claimed(database, asked) == [new(asked)]


@pytest.mark.parametrize(("how", "is_saved"), [("after", True), ("before", False), ("lost", False)])
async def test_a_response_whose_saving_was_not_confirmed_is_unknown(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, how: str, is_saved: bool
) -> None:
    await claimed(database, wanted("a"))
    cut(url, monkeypatch, how)
    with pytest.raises(OutcomeUnknown) as caught:
        await kept(database, "a")
    assert not caught.value.is_pending
    assert ((await rows_by_scope(database))["a"]["status"] == 200) == is_saved
