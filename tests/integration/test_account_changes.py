"""Changes of accounts at providers: those that happen at the same time, and what they mean for calls under way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest_asyncio

from receiver.domain.keyring import KeyRing
from receiver.providers.registry import build_providers
from receiver.serving.master_keys import master_keys
from receiver.storage.audit import Actor
from receiver.storage.database import Database
from receiver.storage.provider_accounts import account_by_id
from receiver.tracking.provider_accounts import ProviderAccounts
from tests.fakes.world import FAST_POLLING, World, in_process

FIRST, SECOND = "sk-first-rT7vQ2mZ8pLs4Kd9", "sk-second-Wn3bXc6Hj1Gy5"
OPENAI = "/api/v1/providers/openai/accounts"
OPERATOR = Actor(organization_id=1, name="a test")


@pytest_asyncio.fixture
async def world(tmp_path: Any) -> AsyncIterator[World]:
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
