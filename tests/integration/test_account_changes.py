"""Changes of accounts at providers at the same time, or while calls are under way; limits, and what is told of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from msgspec.structs import replace
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from receiver.cli.doctor.provider_checks import provider_checks
from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.errors import StorageUnavailable
from receiver.providers import NewTask
from receiver.providers.accounts import ProviderAccount
from receiver.providers.registry import build_providers
from receiver.sandbox import create_sandbox
from receiver.serving.master_keys import master_keys
from receiver.settings import load_settings
from receiver.storage.audit import Actor
from receiver.storage.database import Database
from receiver.storage.encrypted_values import PLACES, apply_changes, examine, values_after
from receiver.storage.known_accounts import KnownAccounts
from receiver.storage.provider_accounts import account_by_id
from receiver.storage.tables import provider_accounts
from receiver.tracking.provider_accounts import ProviderAccounts
from tests.fakes.servers import served
from tests.fakes.world import FAST_POLLING, QUICK, World, in_process
from tests.integration.test_provider_accounts import ACCOUNTS, FIRST, SECOND, Twin, add, create, created

NEW_KEY = "Hy3GdK6wJf5XvB1tZq0M"
OPENAI = "/api/v1/providers/openai/accounts"
OPERATOR = Actor(organization_id=1, name="a test")


class HeldTwin(Twin):
    """Holds the create calls with the key FIRST until they are released."""

    def __init__(self, *, holds: int) -> None:
        super().__init__(create_sandbox(QUICK))
        self.has_all, self.released = asyncio.Event(), asyncio.Event()
        self._holds = holds
        self.held = self.most = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a call; `has_all` is set when as many are held as are expected."""
        key = dict(scope.get("headers", ())).get(b"authorization", b"").decode().partition(" ")[2]
        if scope["type"] == "http" and scope["method"] == "POST" and key == FIRST:
            self.held += 1
            self.most = max(self.most, self.held)
            if self.held == self._holds:
                self.has_all.set()
            await self.released.wait()
            self.held -= 1
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def held_twin(holds: int) -> AsyncIterator[HeldTwin]:
    twin = HeldTwin(holds=holds)
    async with served(twin) as url:
        twin.url = f"{url}/fal"
        yield twin


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with in_process(tmp_path, **FAST_POLLING) as found:
        yield found


@asynccontextmanager
async def accounts_of(world: World) -> AsyncIterator[tuple[ProviderAccounts, Database, KeyRing]]:
    """Open the accounts of a world's database as another process does."""
    keyring, providers = KeyRing(master_keys(world.settings)), build_providers(world.settings, None)
    async with await Database.open(world.settings) as database:
        yield ProviderAccounts(database, keyring, providers), database, keyring
    await providers.aclose()


async def test_two_changes_at_the_same_time_each_replace_their_own_credential(world: World) -> None:
    body = {"name": "a", "credentials": {"api_key": FIRST, "webhook_secret": "whsec_Zmlyc3Q="}}
    added = await world.api.post(OPENAI, json=body)
    assert added.status_code == 200, added.text
    async with accounts_of(world) as (accounts, database, keyring):
        seen_by_both = await accounts.find(added.json()["data"]["id"])
        assert seen_by_both is not None
        await accounts.change(seen_by_both, {}, {"api_key": SECOND}, OPERATOR)
        await accounts.change(seen_by_both, {}, {"webhook_secret": "whsec_c2Vjb25k"}, OPERATOR)
        (row,) = await database.read(account_by_id(seen_by_both["uid"]))
        stored = orjson.loads(keyring.decrypt(row["credentials"]))
    assert stored == {"api_key": SECOND, "webhook_secret": "whsec_c2Vjb25k"}


async def test_a_task_whose_credentials_are_replaced_while_it_is_sent_is_sent_with_the_new_ones(world: World) -> None:
    async with held_twin(1) as twin:
        await add(world, twin, "first", FIRST)
        creating = asyncio.create_task(create(world, account="first"))
        await twin.has_all.wait()
        changed = await world.api.patch(f"{ACCOUNTS}/first", json={"credentials": {"api_key": SECOND}})
        assert changed.status_code == 200, changed.text
        twin.refused.add(FIRST)
        twin.released.set()
        answer = await creating
        assert answer.status_code == 200, answer.text
        assert (await world.ended(answer.json()["data"]["task_id"]))["status"] == "completed"
        assert twin.keys("POST") == {FIRST, SECOND}


async def test_an_account_has_no_more_calls_open_than_it_may(world: World) -> None:
    async with held_twin(2) as twin:
        await add(world, twin, "first", FIRST, concurrency=2)
        await add(world, twin, "second", SECOND)
        creating = [asyncio.create_task(create(world, account="first")) for _ in range(5)]
        await twin.has_all.wait()
        assert (await world.ended(await created(world, account="second")))["status"] == "completed"
        twin.released.set()
        for answer in await asyncio.gather(*creating):
            assert (await world.ended(answer.json()["data"]["task_id"]))["status"] == "completed"
        assert twin.most == 2


async def test_the_rate_of_an_account_holds_up_its_own_calls_alone(tmp_path: Path) -> None:
    # A stop waits for a call that waits for its turn.
    async with in_process(tmp_path, provider_timeout_seconds="1", **FAST_POLLING) as world, held_twin(0) as twin:
        twin.released.set()
        await add(world, twin, "first", FIRST, calls_per_second=0.01)
        await add(world, twin, "second", SECOND)
        await created(world, account="first")
        creating = asyncio.create_task(create(world, account="first"))
        assert (await world.ended(await created(world, account="second")))["status"] == "completed"
        creating.cancel()
        assert [key for method, _, key in twin.calls if (method, key) == ("POST", FIRST)] == [FIRST]


async def test_a_pause_that_the_provider_asked_for_outlasts_a_change_of_the_rate(world: World) -> None:
    async with held_twin(0) as twin:
        twin.released.set()
        account = ProviderAccount(
            provider="fal", name="a", credentials={"api_key": FIRST}, base_url=twin.url, uid="a-1"
        )
        providers = build_providers(world.settings, None)
        before = providers.of_account(account)
        refused = {"submit": "rate_limited", "retry_after": 600}
        await before.submit(NewTask(model="fal-ai/flux/dev", task_type="any", input={"sandbox": refused}))
        after = providers.of_account(replace(account, calls_per_second=3.0))
        assert after.paused_for() > 100
        for adapter in (before, after, providers):
            await adapter.aclose()


async def test_a_change_whose_reading_was_interrupted_is_read_again(world: World) -> None:
    async with held_twin(0) as twin, accounts_of(world) as (_, database, _):
        await add(world, twin, "first", FIRST)
        forgotten: list[int] = []

        async def forget(key: int) -> None:
            forgotten.append(key)
            if len(forgotten) == 1:
                raise OSError("a connection could not be closed")

        known = KnownAccounts(database, forget)
        with pytest.raises(OSError, match="closed"):
            await known.refresh()
        await known.refresh()
        await known.refresh()
    assert forgotten == [forgotten[0]] * 2


async def test_an_account_that_is_added_and_cannot_be_read_is_not_told_as_not_added(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(_: KnownAccounts) -> None:
        raise StorageUnavailable("the database is away")

    request: dict[str, Any] = {
        "json": {"name": "a", "credentials": {"api_key": FIRST}},
        "headers": {"Idempotency-Key": "adding-a"},
    }
    with monkeypatch.context() as away:
        away.setattr(KnownAccounts, "refresh", unavailable)
        answer = await world.api.post(ACCOUNTS, **request)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "outcome_unknown")
    again = await world.api.post(ACCOUNTS, **request)
    assert (again.status_code, again.json()["data"]["name"]) == (200, "a")


async def test_a_key_of_the_operator_s_organization_that_is_no_admin_s_sees_no_account_of_others(world: World) -> None:
    made = (await world.api.post("/api/v1/organizations", json={"name": "acme"})).json()["data"]
    body = {"name": "theirs", "credentials": {"api_key": FIRST}, "organization_id": made["id"]}
    account = (await world.api.post(ACCOUNTS, json=body)).json()["data"]
    reader = (await world.api.post("/api/v1/keys", json={"name": "reader", "scope": "read"})).json()["data"]["key"]
    for key, sees in ((None, True), (reader, False)):
        headers = {} if key is None else {"x-api-key": key}
        listed = (await world.api.get(ACCOUNTS, headers=headers)).json()["data"]["data"]
        found = await world.api.get(f"{ACCOUNTS}/{account['id']}", headers=headers)
        assert ([each["name"] for each in listed] == ["theirs"], found.status_code == 200) == (sees, sees)


async def test_an_address_with_a_password_in_it_is_refused(world: World) -> None:
    body = {"name": "a", "credentials": {"api_key": FIRST}, "base_url": "http://user:word-4Tz8@127.0.0.1:9"}
    answer = await world.api.post(ACCOUNTS, json=body)
    assert (answer.status_code, "no user and password" in answer.text) == (400, True)
    assert "word-4Tz8" not in answer.text


async def test_piapi_s_refusal_of_an_account_s_key_names_the_account(world: World) -> None:
    body = {"name": "team-a", "credentials": {"api_key": FIRST}}
    added = await world.api.post("/api/v1/providers/piapi/accounts", json=body)
    assert added.status_code == 200, added.text
    answer = await world.create({"submit": "unauthorized"}, account="team-a")
    assert (answer.status_code, "that of account 'team-a'" in answer.text) == (502, True)
    assert "RINGBACK_" not in answer.text
    answer = await world.create({"submit": "unauthorized"})
    assert (answer.status_code, "RINGBACK_PIAPI_API_KEY" in answer.text) == (502, True)


async def test_the_doctor_says_what_an_account_lacks_and_not_to_look_at_the_network(world: World) -> None:
    settings = load_settings({**world.environment, "RINGBACK_PROVIDER_KLING_ACCESS_KEY": FIRST}, env_file=None)
    (kling,) = [each for each in await provider_checks(settings) if each.check == "kling"]
    assert (kling.outcome, "has no secret_key" in kling.found) == ("bad", True)
    assert "give the account what it lacks: RINGBACK_PROVIDER_KLING_" in str(kling.mend)


async def test_a_task_says_which_account_it_uses(world: World) -> None:
    async with held_twin(0) as twin:
        twin.released.set()
        await add(world, twin, "first", FIRST)
        task, other = await created(world, account="first"), await world.created()
        assert (await world.api.delete(f"{ACCOUNTS}/first")).status_code == 200
        for query in ({}, {"brief": "true"}):
            listed = (await world.api.get("/api/v1/tasks", params=query)).json()["data"]["data"]
            assert {each["task_id"]: each["account"] for each in listed} == {task: "first", other: None}
        assert ((await world.task(task))["account"], (await world.task(other))["account"]) == ("first", None)


async def test_a_new_master_key_encrypts_the_credentials_of_all_accounts_also_of_removed_ones(world: World) -> None:
    for name in ("kept", "removed"):
        body = {"name": name, "credentials": {"api_key": FIRST}}
        assert (await world.api.post(ACCOUNTS, json=body)).status_code == 200
    assert (await world.api.delete(f"{ACCOUNTS}/removed")).status_code == 200
    both, newest = KeyRing([*master_keys(world.settings), NEW_KEY]), KeyRing([NEW_KEY])
    async with accounts_of(world) as (_, database, _):
        for place in PLACES:
            _, changes = examine(place, await database.read(values_after(place, 0)), both, utc_now())
            await database.writer.run(partial(apply_changes, changes=changes))
        rows = await database.read(select(provider_accounts.c.credentials))
    assert [orjson.loads(newest.decrypt(row["credentials"])) for row in rows] == [{"api_key": FIRST}] * 2
