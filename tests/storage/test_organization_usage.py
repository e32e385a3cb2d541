"""What organizations use is counted in the background, and their limits are known without a query."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from models import TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.errors import OutcomeUnknown, WriterFull
from receiver.organization_limits import OrganizationLimits
from receiver.storage import organization_usage
from receiver.storage.database import Database
from receiver.storage.idempotency import KEPT, ClaimRequest, claim
from receiver.storage.known_limits import KnownLimits
from receiver.storage.organization_usage import OrganizationUsage
from receiver.storage.organizations import (
    change_organization,
    insert_organization,
    organization_by_key,
    stored_bytes_after,
)
from receiver.storage.tables import organizations, tasks
from receiver.storage.transaction import TaskChange
from tests.fakes.databases import settings_in
from tests.storage.rows import add_organization, add_tasks, task_row

LIMITS = OrganizationLimits(open_tasks=10)


@pytest.fixture
async def both(database: Database) -> tuple[int, int]:
    """The row keys of two organizations."""
    return await add_organization(database), await add_organization(database, "acme")


def usage_of(database: Database, limits: OrganizationLimits = LIMITS, **given: Any) -> OrganizationUsage:
    return OrganizationUsage(database, lambda _organization_id: limits, **given)


async def eventually(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the loops under test tell no caller what they have read
            await asyncio.sleep(0.01)


async def test_a_task_has_the_bytes_of_what_was_sent_and_of_all_content_that_was_written(
    database: Database, both: tuple[int, int]
) -> None:
    (key,) = await add_tasks(database, task_row(input={"p": "ü"}, metadata={"m": 1}))
    size = len('{"p":"ü"}'.encode()) + len('{"m":1}')

    async def stored() -> int:
        return int((await database.read(select(tasks.c.stored_bytes).where(tasks.c.id == key)))[0]["stored_bytes"])

    assert await stored() == size
    for output in ({"a": 1}, {"a": 22}):
        change = TaskChange(id=key, from_status=TaskStatus.QUEUED, from_attempt=1, values={"output": output})
        await database.writer.run(lambda tx, change=change: tx.update_tasks([change]))  # type: ignore[misc]
    assert await stored() == size + len('{"a":1}') + len('{"a":22}')


async def test_open_tasks_are_those_of_the_organization_that_have_not_ended(
    database: Database, both: tuple[int, int]
) -> None:
    ours, theirs = both
    rows = [task_row(organization_id=ours, status=status) for status in TaskStatus]
    await add_tasks(database, *rows, *(task_row(organization_id=theirs) for _ in range(7)))
    usage = usage_of(database)
    assert await usage.count(ours) == usage.open_tasks(ours) == 4
    assert await usage.count(theirs) == 7


async def test_open_tasks_are_counted_no_further_than_the_limit_needs(
    database: Database, both: tuple[int, int]
) -> None:
    await add_tasks(database, *(task_row() for _ in range(20)))
    assert await usage_of(database).count(both[0]) == 11


async def test_a_process_that_has_just_started_counts_before_the_first_create_and_once(
    database: Database, both: tuple[int, int]
) -> None:
    await add_tasks(database, *(task_row() for _ in range(4)))
    usage = usage_of(database)
    await asyncio.gather(*(usage.ensure_counted(both[0]) for _ in range(5)))
    assert usage.open_tasks(both[0]) == 4
    await add_tasks(database, task_row())
    await usage.ensure_counted(both[0])
    assert usage.open_tasks(both[0]) == 4


async def test_when_a_limit_was_raised_those_that_the_last_count_left_out_are_counted(
    database: Database, both: tuple[int, int]
) -> None:
    await add_tasks(database, *(task_row() for _ in range(8)))
    limits = OrganizationLimits(open_tasks=3)
    usage = OrganizationUsage(database, lambda _organization_id: limits)
    await usage.ensure_counted(both[0])
    assert usage.open_tasks(both[0]) == 4
    limits = OrganizationLimits(open_tasks=20)
    await usage.ensure_counted(both[0])
    assert usage.open_tasks(both[0]) == 8


async def test_a_limit_is_counted_to_however_great_it_is(
    database: Database, both: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organization_usage, "MOST_COUNTED", 5)
    await add_tasks(database, *(task_row() for _ in range(8)))
    assert await usage_of(database).count(both[0]) == 8
    assert await usage_of(database, OrganizationLimits(open_tasks=None)).count(both[0]) == 5


async def test_what_this_process_creates_counts_at_once_and_is_not_counted_twice(
    database: Database, both: tuple[int, int]
) -> None:
    usage = usage_of(database)
    with usage.admit(both[0], 3, 100):
        assert (usage.open_tasks(both[0]), usage.stored_bytes(both[0])) == (3, 100)
        await add_tasks(database, *(task_row() for _ in range(3)))
    assert usage.open_tasks(both[0]) == 3
    assert await usage.count(both[0]) == 3


async def test_a_create_that_is_under_way_is_not_forgotten_by_a_count_before_its_commit(
    database: Database, both: tuple[int, int]
) -> None:
    usage = usage_of(database, sum_seconds=0)
    with usage.admit(both[0], 2, 70) as admission:
        assert await usage.count(both[0]) == 2
        await usage._sum_once()
        assert usage.stored_bytes(both[0]) == 70
        admission.stored()
    assert (usage.open_tasks(both[0]), usage.stored_bytes(both[0])) == (2, 70)


@pytest.mark.parametrize(
    ("error", "left"), [(WriterFull("full"), 0), (OutcomeUnknown(), 4), (asyncio.CancelledError(), 4)], ids=type
)
async def test_a_create_that_failed_counts_no_more_unless_it_may_be_stored(
    database: Database, both: tuple[int, int], error: BaseException, left: int
) -> None:
    usage = usage_of(database)
    with pytest.raises(type(error)), usage.admit(both[0], 4, 40):
        raise error
    assert (usage.open_tasks(both[0]), usage.stored_bytes(both[0])) == (left, left * 10)


async def test_a_count_that_was_asked_for_shows_what_has_ended(
    database: Database, both: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organization_usage, "_COUNT_SECONDS", 0.01)
    usage = usage_of(database)
    loop = asyncio.create_task(usage.count_tasks())
    usage.admit(both[0], 9, 0).stored()
    await eventually(lambda: usage.open_tasks(both[0]) == 0)
    await add_tasks(database, task_row(), task_row())
    usage.count_soon(both[0])
    await eventually(lambda: usage.open_tasks(both[0]) == 2)
    await database.writer.run(lambda tx: tx.execute(update(tasks).values(status=TaskStatus.FAILED)))
    usage.count_soon(both[0])
    await eventually(lambda: usage.open_tasks(both[0]) == 0)
    loop.cancel()


async def test_bytes_are_summed_page_by_page_over_all_tasks(
    database: Database, both: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organization_usage, "_SUMMED_AT_ONCE", 4)
    monkeypatch.setattr(organization_usage, "_QUICK_SECONDS", 0)
    monkeypatch.setattr(organization_usage, "_PAUSES", 0)
    ours, theirs = both
    rows = [task_row(organization_id=ours if number % 3 else theirs, input={"p": number}) for number in range(20)]
    await add_tasks(database, *rows)
    expected = {
        organization: sum(len(f'{{"p":{row["input"]["p"]}}}') for row in rows if row["organization_id"] == organization)
        for organization in both
    }
    usage = usage_of(database, sum_seconds=0.01)
    usage.admit(ours, 1, 10_000_000).stored()
    loop = asyncio.create_task(usage.sum_bytes())
    await eventually(lambda: {each: usage.stored_bytes(each) for each in both} == expected)
    await database.writer.run(lambda tx: tx.execute(update(tasks).values(stored_bytes=1)))
    await eventually(lambda: usage.stored_bytes(ours) + usage.stored_bytes(theirs) == 20)
    loop.cancel()


async def test_a_page_of_sums_names_where_the_next_one_begins(database: Database, both: tuple[int, int]) -> None:
    keys = await add_tasks(database, *(task_row() for _ in range(5)))
    (page,) = await database.read(stored_bytes_after(keys[1], 2))
    assert (page["tasks"], page["last"]) == (2, keys[3])


async def test_idempotency_keys_that_are_used_are_those_that_the_limit_counts(
    database: Database, both: tuple[int, int]
) -> None:
    ours, theirs = both
    await claim_keys(database, ("new", ours, timedelta()), ("ended", ours, KEPT), ("other", theirs, KEPT / 2))
    usage = usage_of(database)
    assert [(await usage.counts(each))["idempotency_keys"] for each in both] == [1, 1]


async def test_idempotency_keys_that_are_used_are_counted_up_to_their_limit(
    database: Database, both: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organization_usage, "MOST_COUNTED", 2)
    await claim_keys(database, *((str(number), both[0], timedelta()) for number in range(5)))
    for limit, counted in ((4, 5), (None, 2), (10, 5)):
        usage = usage_of(database, OrganizationLimits(idempotency_keys=limit))
        assert (await usage.counts(both[0]))["idempotency_keys"] == counted


async def claim_keys(database: Database, *keys: tuple[str, int, timedelta]) -> None:
    """Make idempotency keys: their names, their organizations, their ages."""
    for name, organization_id, age in keys:
        now = utc_now() - age
        request = ClaimRequest(
            scope=name,
            body="",
            resource_id=new_id(),
            owner=new_id(),
            now=now,
            lease_until=now,
            organization_id=organization_id,
        )
        await database.writer.write(claim, request)


async def test_a_change_of_limits_is_known_here_at_once_and_to_another_process_after_its_next_look(
    database: Database, both: tuple[int, int], tmp_path: Path
) -> None:
    here = KnownLimits(database, LIMITS)
    async with await Database.open(settings_in(tmp_path)) as elsewhere:
        there = KnownLimits(elsewhere, LIMITS)
        ours, theirs = both
        (row,) = await database.read(organization_by_key(theirs))

        async def change(**limits: Any) -> Any:
            _, changed = await database.writer.run(lambda tx: change_organization(tx, row["uid"], limits, {}))
            await here.refresh()
            await there.refresh()
            return changed

        await change(webhooks=5, streams="unlimited")
        for known in (here, there):
            assert (known.of(theirs).webhooks, known.of(theirs).streams, known.of(theirs).open_tasks) == (5, None, 10)
            assert known.of(ours) == LIMITS
        assert (await change(webhooks=None))["limits"] == {"streams": "unlimited"}
        assert here.of(theirs).webhooks == there.of(theirs).webhooks == LIMITS.webhooks
        assert (await change(streams=None))["limits"] is None


async def test_limits_that_a_later_version_wrote_leave_the_defaults(
    database: Database, both: tuple[int, int], logged: list[Any]
) -> None:
    await database.writer.run(lambda tx: tx.execute(update(organizations).values(limits={"dreams": 1})))
    known = KnownLimits(database, LIMITS)
    await known.refresh()
    await known.refresh()
    assert known.of(both[0]) == LIMITS
    assert [each["event"] for each in logged] == ["limits of an organization not understood"] * 2  # one of each


async def test_of_two_organizations_with_one_name_the_second_is_refused(
    database: Database, both: tuple[int, int]
) -> None:
    def values(number: int) -> dict[str, Any]:
        uid = f"00000000-0000-7000-8000-00000000000{number}"
        return {"uid": uid, "name": "new", "owns_provider_account": False, "limits": None, "created_at": utc_now()}

    made = await asyncio.gather(
        *(database.writer.run(lambda tx, n=n: insert_organization(tx, values(n))) for n in range(3))  # type: ignore[misc]
    )
    assert sorted(each is None for each in made) == [False, True, True]
