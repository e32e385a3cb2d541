"""Accounts at providers in the database: whose key a task's calls have, and who may see and change them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from receiver.app import create_app
from receiver.cli.doctor.provider_checks import account_checks
from receiver.domain.keyring import KeyRing
from receiver.providers import CallbackScope, Signature
from receiver.providers.adapter import Adapter
from receiver.providers.fal import Fal
from receiver.sandbox import create_sandbox
from receiver.serving.master_keys import master_keys
from receiver.storage.reading import reading
from tests.fakes.declared import EXAMPLES
from tests.fakes.described import DescribedClient
from tests.fakes.servers import served
from tests.fakes.world import API_KEY, FAST_POLLING, QUICK, World, in_process

FIRST, SECOND = "fal-key-rT7vQ2mZ8pLs4Kd9", "fal-key-Wn3bXc6Hj1Gy5Fe0"
OTHER_KEY = "fal-key-Ua8sDk2Lq7Zp4Mv1"
ACCOUNTS = "/api/v1/providers/fal/accounts"
NEVER = {"pending_seconds": 60}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"credentials": {}}, "missing: api_key"),
    ({"credentials": {"api_key": "k" * 20, "token": "x"}}, "no 'token'"),
    ({"credentials": {"api_key": "kéy"}}, "no header may have"),
    ({"name": "default"}, "choose another name"),
    ({"name": "a b"}, "name"),
    ({"base_url": "ftp://host"}, "http"),
    ({"concurrency": 0}, "concurrency"),
]


class Twin:
    """The sandbox's fal behind a look at which key each call has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.url = ""
        self.calls: list[tuple[str, str, str]] = []
        self.refused: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the method, the path and the key of a call; refuse keys of `refused`."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            key = headers.get(b"authorization", b"").decode().partition(" ")[2]
            self.calls.append((scope["method"], scope["path"], key))
            if key in self.refused:
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b'{"detail": "the key is wrong"}'})
                return
        await self._app(scope, receive, send)

    def keys(self, part: str) -> set[str]:
        """Return the keys of the calls whose method or path has this part."""
        return {key for method, path, key in self.calls if part in f"{method} {path}"}


@asynccontextmanager
async def twin_served() -> AsyncIterator[Twin]:
    twin = Twin(create_sandbox(QUICK))
    async with served(twin) as url:
        twin.url = f"{url}/fal"
        yield twin


@pytest_asyncio.fixture
async def twin() -> AsyncIterator[Twin]:
    async with twin_served() as found:
        yield found


@pytest_asyncio.fixture
async def world(tmp_path: Any) -> AsyncIterator[World]:
    async with in_process(tmp_path, **FAST_POLLING) as found:
        yield found


async def add(world: World, twin: Twin, name: str, key: str, **fields: Any) -> dict[str, Any]:
    body = {"name": name, "credentials": {"api_key": key}, "base_url": twin.url, **fields}
    answer = await world.api.post(ACCOUNTS, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def create(world: World, sandbox: dict[str, Any] | None = None, **fields: Any) -> httpx.Response:
    body = {"provider": "fal", "model": "fal-ai/flux/dev", "task_type": "any", **fields}
    return await world.create(sandbox or {}, **body)


async def created(world: World, sandbox: dict[str, Any] | None = None, **fields: Any) -> str:
    answer = await create(world, sandbox, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


@asynccontextmanager
async def tenant(world: World, name: str = "acme") -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    answer = await world.api.post("/api/v1/organizations", json={"name": name})
    made = answer.json()["data"]
    async with DescribedClient(base_url=world.base, headers={"x-api-key": made["key"]}, timeout=40) as client:
        yield made["id"], client


async def test_each_task_is_created_and_looked_at_with_the_key_of_its_account(world: World, twin: Twin) -> None:
    await add(world, twin, "first", FIRST)
    await add(world, twin, "second", SECOND)
    for name, key in (("first", FIRST), ("second", SECOND)):
        twin.calls.clear()
        task = await world.ended(await created(world, {"webhook": "lost"}, account=name))
        assert task["status"] == "completed"
        assert {"POST", "GET"} == {method for method, path, _ in twin.calls if "jwks" not in path}
        assert {each for _, path, each in twin.calls if "jwks" not in path} == {key}


async def test_a_webhook_is_verified_and_applied_for_the_task_s_account(world: World, twin: Twin) -> None:
    await add(world, twin, "first", FIRST)
    task = await world.ended(await created(world, account="first"))
    assert task["status"] == "completed"
    assert "webhook" in [each["source"] for each in await world.events(task["task_id"])]
    assert twin.keys("jwks") == {FIRST}  # of the twin, whose keys are not those of the other one


async def test_a_cancel_goes_to_the_task_s_account(world: World, twin: Twin) -> None:
    await add(world, twin, "first", FIRST)
    await add(world, twin, "second", SECOND)
    task = await created(world, NEVER, account="second")
    answer = await world.api.post(f"/api/v1/tasks/{task}/cancel")
    assert answer.status_code == 200, answer.text
    assert twin.keys("PUT") == {SECOND}


@pytest.mark.usefixtures("quick_search")
async def test_a_lost_create_is_searched_for_in_the_list_of_its_account(world: World, twin: Twin) -> None:
    for name, key in (("first", FIRST), ("second", SECOND)):
        body = {"name": name, "credentials": {"api_key": key}, "base_url": twin.url.replace("/fal", "/replicate")}
        answer = await world.api.post("/api/v1/providers/replicate/accounts", json=body)
        assert answer.status_code == 200, answer.text
    lost = {"submit": "cut", "webhook": "lost"}
    task = await created(world, lost, account="second", provider="replicate", model="stability-ai/sdxl")
    assert (await world.ended(task))["status"] == "completed"
    assert twin.keys("GET /replicate/v1/predictions") == {SECOND}


async def test_each_task_of_a_bulk_has_its_own_account(world: World, twin: Twin) -> None:
    await add(world, twin, "first", FIRST)
    await add(world, twin, "second", SECOND)
    one = {"provider": "fal", "model": "fal-ai/flux/dev", "task_type": "t", "input": {"prompt": "a"}}
    tasks = [{**one, "account": name} for name in ("first", "second", "third")]
    answer = await world.api.post("/api/v1/tasks", json={"tasks": tasks})
    first, second, third = answer.json()["data"]["data"]
    assert third["error"]["code"] == "unknown_account"
    for made in (first, second):
        assert (await world.ended(made["task_id"]))["status"] == "completed"
    assert twin.keys("POST") == {FIRST, SECOND}


async def test_a_step_s_task_has_the_account_of_its_action(tmp_path: Any, twin: Twin) -> None:
    actions = tmp_path / "actions.toml"
    actions.write_text(
        '[actions.draw]\nprovider = "fal"\nmodel = "fal-ai/flux/dev"\ntask_type = "t"\naccount = "first"\n'
    )
    run = {"steps": [{"id": "a", "action": "draw", "input": {"prompt": "a"}}]}
    async with in_process(tmp_path, **FAST_POLLING, actions_file=str(actions)) as world:
        refused = await world.api.post("/api/v1/runs", json=run)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_account")
        await add(world, twin, "first", FIRST)
        made = await world.api.post("/api/v1/runs", json=run)
        assert made.status_code == 202, made.text
        query = {"wait_for_completion": "true"}
        ended = await world.api.get(f"/api/v1/runs/{made.json()['data']['run_id']}", params=query)
        assert ended.json()["data"]["status"] == "completed"
    assert twin.keys("POST") == {FIRST}


async def test_an_action_s_account_is_not_used_at_another_provider(tmp_path: Any, twin: Twin) -> None:
    actions = tmp_path / "actions.toml"
    actions.write_text('[actions.draw]\nprovider = "fal"\nmodel = "m"\ntask_type = "txt2img"\naccount = "first"\n')
    run = {"steps": [{"id": "a", "action": "draw", "provider": "piapi", "input": {"prompt": "a"}}]}
    async with in_process(tmp_path, **FAST_POLLING, actions_file=str(actions)) as world:
        made = await world.api.post("/api/v1/runs", json=run)
        assert made.status_code == 202, made.text
        query = {"wait_for_completion": "true"}
        ended = await world.api.get(f"/api/v1/runs/{made.json()['data']['run_id']}", params=query)
        assert ended.json()["data"]["status"] == "completed"
    assert twin.calls == []


async def test_a_prediction_has_the_organization_s_default_account(world: World, twin: Twin) -> None:
    await add(world, twin, "first", FIRST, is_default=True)
    made = await world.api.post("/v1/predictions", json={"version": "fal:fal-ai/flux/dev", "input": {"prompt": "a"}})
    assert made.status_code == 201, made.text
    assert (await world.ended(made.json()["id"]))["status"] == "completed"
    assert twin.keys("POST") == {FIRST}


async def test_an_account_of_a_described_provider_has_all_its_credentials_and_optional_ones(tmp_path: Any) -> None:
    async with in_process(tmp_path, **FAST_POLLING, declared=("kling",)) as world:
        providers = {each["name"]: each for each in (await world.api.get("/api/v1/providers")).json()["data"]["data"]}
        assert providers["kling"]["credentials"] == ["access_key", "secret_key"]
        assert providers["openai"]["optional_credentials"] == ["webhook_secret"]
        path = "/api/v1/providers/kling/accounts"
        missing = await world.api.post(path, json={"name": "a", "credentials": {"access_key": FIRST}})
        assert (missing.status_code, "missing: secret_key" in missing.text) == (400, True)
        both = {"access_key": FIRST, "secret_key": SECOND}
        added = await world.api.post(path, json={"name": "a", "credentials": both, "is_default": True})
        assert added.status_code == 200, added.text
        uid = await created(world, provider="kling", model="kling-v1", task_type="videos/text2video")
        assert (await world.ended(uid))["status"] == "completed"
        body = {"name": "a", "credentials": {"api_key": FIRST, "webhook_secret": "whsec_c2VjcmV0"}}
        added = await world.api.post("/api/v1/providers/openai/accounts", json=body)
        names = [each["name"] for each in added.json()["data"]["credentials"]]
        assert names == ["api_key", "webhook_secret"]


async def test_an_account_of_a_provider_that_no_file_describes_any_more_stops_no_start(tmp_path: Any) -> None:
    folder = tmp_path / "providers"
    folder.mkdir()
    (folder / "everything.toml").write_text((EXAMPLES / "everything.toml").read_text())
    async with in_process(tmp_path, **FAST_POLLING, providers_dir=str(folder)) as world:
        described = (await world.api.get("/api/v1/providers")).json()["data"]["data"]
        (names,) = [each["credentials"] for each in described if each["name"] == "everything"]
        body = {"name": "a", "credentials": dict.fromkeys(names, FIRST), "is_default": True}
        added = await world.api.post("/api/v1/providers/everything/accounts", json=body)
        assert added.status_code == 200, added.text
    (folder / "everything.toml").unlink()
    async with reading(world.settings) as read:
        (found,) = await account_checks(world.settings, read, KeyRing(master_keys(world.settings)))
    assert (found.check, found.outcome) == ("everything, account a", "bad")
    assert "no provider is named 'everything'" in found.found
    async with another_process(world) as later:
        assert (await later.get("/api/v1/providers")).status_code == 200
        account = f"/api/v1/providers/everything/accounts/{added.json()['data']['id']}"
        assert (await later.get(account)).json()["error"]["code"] == "provider_not_found"
        assert (await later.delete(account)).status_code == 200


async def test_an_account_s_own_address_tells_of_its_tasks_alone(
    tmp_path: Any, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def valid(*_: Any) -> Signature:
        return Signature.VALID

    monkeypatch.setattr(Adapter, "check_signature", valid)
    monkeypatch.setattr(Fal, "capabilities", replace(Fal.capabilities, callback=CallbackScope.ACCOUNT))
    async with in_process(tmp_path) as world:
        first, second = await add(world, twin, "first", FIRST), await add(world, twin, "second", SECOND)
        task = await world.task(await created(world, NEVER, account="second"))
        body = {"request_id": task["provider_task_id"], "status": "OK", "payload": {"images": []}}
        statuses = []
        for path in ("/hooks/fal", f"/hooks/fal/accounts/{first['id']}", f"/hooks/fal/accounts/{second['id']}"):
            answer = await world.api.post(path, json=body)
            assert answer.status_code == 200, answer.text
            statuses.append((await world.task(task["task_id"]))["status"])
        assert statuses == ["pending", "pending", "completed"]
        for path in (f"/hooks/fal/accounts/{task['task_id']}", f"/hooks/replicate/accounts/{second['id']}"):
            assert (await world.api.post(path, json=body)).status_code == 404


@pytest.mark.postgresql_only("SQLite has one process")
async def test_another_process_knows_of_a_change_within_two_seconds(tmp_path: Any, twin: Twin) -> None:
    async with in_process(tmp_path, **FAST_POLLING) as world, another_process(world) as other:
        body = {"provider": "fal", "model": "fal-ai/flux/dev", "task_type": "t", "input": {"sandbox": NEVER}}
        await add(world, twin, "first", FIRST)
        at_once = await other.post("/api/v1/task", json={**body, "account": "first"})
        assert at_once.status_code == 200, at_once.text
        assert twin.keys("POST") == {FIRST}
        await world.api.patch(f"{ACCOUNTS}/first", json={"credentials": {"api_key": SECOND}})
        async with asyncio.timeout(2):
            while SECOND not in twin.keys("POST"):
                twin.calls.clear()
                assert (await other.post("/api/v1/task", json={**body, "account": "first"})).status_code == 200


@asynccontextmanager
async def another_process(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service a second time on the same database; return a client of it."""
    app = create_app(world.settings, master_keys(world.settings))
    async with served(app) as url, DescribedClient(base_url=url, headers={"x-api-key": API_KEY}, timeout=40) as client:
        yield client


async def test_rotated_credentials_are_used_at_once_also_for_earlier_tasks(world: World, twin: Twin) -> None:
    account = await add(world, twin, "first", FIRST)
    task = await created(world, NEVER, account="first")
    changed = await world.api.patch(f"{ACCOUNTS}/first", json={"credentials": {"api_key": SECOND}})
    assert changed.status_code == 200, changed.text
    assert changed.json()["data"]["id"] == account["id"]
    twin.calls.clear()
    assert (await world.api.post(f"/api/v1/tasks/{task}/cancel")).status_code == 200
    await created(world, NEVER, account="first")
    assert twin.keys("PUT") | twin.keys("POST") == {SECOND}


async def test_tasks_of_a_removed_account_are_followed_to_their_end_and_new_ones_refused(
    world: World, twin: Twin
) -> None:
    await add(world, twin, "first", FIRST)
    task = await created(world, {"webhook": "lost", "pending_seconds": 0.5}, account="first")
    removed = await world.api.delete(f"{ACCOUNTS}/first")
    assert removed.json()["data"]["deleted"] is True
    answer = await create(world, account="first")
    assert (answer.status_code, "is named 'first'; use default" in answer.text) == (400, True)
    assert (await world.ended(task))["status"] == "completed"
    assert (await world.api.get(ACCOUNTS)).json()["data"]["data"] == []
    await add(world, twin, "first", SECOND)  # its name is free again


async def test_without_a_name_the_organization_s_default_is_used_then_everyone_s_then_the_environment_s(
    world: World, twin: Twin
) -> None:
    async with tenant(world) as (organization_id, client):

        async def key_of_new_task() -> set[str]:
            twin.calls.clear()
            body = {"provider": "fal", "model": "fal-ai/flux/dev", "task_type": "t", "input": {"sandbox": NEVER}}
            answer = await client.post("/api/v1/task", json=body)
            assert answer.status_code == 200, answer.text
            return twin.keys("POST")

        assert await key_of_new_task() == set()  # the environment's account is at another twin
        await add(world, twin, "shared", FIRST, everyone=True, is_default=True)
        assert await key_of_new_task() == {FIRST}
        await add(world, twin, "own", SECOND, organization_id=organization_id, is_default=True)
        assert await key_of_new_task() == {SECOND}
        await add(world, twin, "newer", OTHER_KEY, organization_id=organization_id, is_default=True)
        assert await key_of_new_task() == {OTHER_KEY}
        body = {"provider": "fal", "model": "fal-ai/flux/dev", "task_type": "t", "input": {}, "account": "default"}
        twin.calls.clear()
        assert (await client.post("/api/v1/task", json=body)).status_code == 200
        assert twin.keys("POST") == set()


async def test_another_organization_s_account_can_neither_be_used_nor_seen(world: World, twin: Twin) -> None:
    mine = await add(world, twin, "private", FIRST)
    async with tenant(world) as (_, client):
        listed = (await client.get("/api/v1/providers")).json()["data"]["data"]
        assert {account["name"] for each in listed for account in each["accounts"]} == {"default"}
        body = {"provider": "fal", "model": "m", "task_type": "t", "input": {}, "account": "privat"}
        refused = await client.post("/api/v1/task", json=body)
        assert refused.status_code == 400
        assert "private" not in refused.text
        bulk = await client.post("/api/v1/tasks", json={"tasks": [{**body, "account": "private"}]})
        assert bulk.json()["data"]["data"][0]["error"]["code"] == "unknown_account"
        for account in ("private", mine["id"]):
            assert (await client.patch(f"{ACCOUNTS}/{account}", json={"is_default": True})).status_code == 404
            assert (await client.post(f"{ACCOUNTS}/{account}/check")).status_code == 404
            assert (await client.delete(f"{ACCOUNTS}/{account}")).status_code == 404
    assert twin.calls == []


async def test_the_nearest_names_are_told(world: World, twin: Twin) -> None:
    await add(world, twin, "production", FIRST)
    answer = await create(world, account="produktion")
    assert answer.status_code == 400
    assert answer.json()["message"].endswith("is named 'produktion'; use production")


async def test_an_organization_adds_accounts_of_its_own_but_says_no_address(world: World, twin: Twin) -> None:
    async with tenant(world) as (_, client):
        body = {"name": "own", "credentials": {"api_key": FIRST}}
        for more in ({"base_url": twin.url}, {"everyone": True}):
            assert (await client.post(ACCOUNTS, json={**body, **more})).status_code == 403
        assert (await client.post(ACCOUNTS, json=body)).status_code == 200
        assert (await client.post(ACCOUNTS, json=body)).status_code == 409
        assert (await client.patch(f"{ACCOUNTS}/own", json={"base_url": twin.url})).status_code == 403
        await add(world, twin, "shared", SECOND, everyone=True)
        assert (await client.delete(f"{ACCOUNTS}/shared")).status_code == 403
        (shared,) = [each for each in (await client.get(ACCOUNTS)).json()["data"]["data"] if each["name"] == "shared"]
        assert (shared["base_url"], shared["credentials"]) == (None, [{"name": "api_key", "hint": None}])


async def test_what_cannot_be_an_account_is_refused_with_the_reason(world: World) -> None:
    for fields, part in WRONG:
        answer = await world.api.post(ACCOUNTS, json={"name": "a", "credentials": {"api_key": FIRST}, **fields})
        assert answer.status_code == 400
        assert part in answer.text
        assert FIRST not in answer.text


async def test_a_check_says_whether_the_provider_accepts_the_key(world: World, twin: Twin) -> None:
    await add(world, twin, "first", FIRST)
    good = (await world.api.post(f"{ACCOUNTS}/first/check")).json()["data"]
    assert (good["is_reached"], good["is_accepted"], good["fault"]) == (True, True, None)
    twin.refused.add(FIRST)
    bad = (await world.api.post(f"{ACCOUNTS}/first/check")).json()["data"]
    assert (bad["is_reached"], bad["is_accepted"]) == (True, False)
    of_environment = (await world.api.post(f"{ACCOUNTS}/default/check")).json()["data"]
    assert of_environment["is_accepted"] is True


async def test_the_doctor_asks_about_each_account_and_says_what_to_do(world: World, twin: Twin) -> None:
    good, bad = await add(world, twin, "good", FIRST), await add(world, twin, "bad", SECOND)
    twin.refused.add(SECOND)
    async with reading(world.settings) as read:
        found = await account_checks(world.settings, read, KeyRing(master_keys(world.settings)))
        gone = await account_checks(world.settings, read, KeyRing(["another-master-key-6Vt1Yb9Ks3Wn"]))
    outcomes = {each.check: each for each in found}
    assert outcomes[f"fal, account {good['name']}"].outcome == "ok"
    refused = outcomes[f"fal, account {bad['name']}"]
    assert refused.outcome == "bad"
    assert f"ringback provider account rotate fal {bad['id']}" in str(refused.mend)
    assert [each.outcome for each in gone] == ["bad", "bad"]


async def test_a_refused_key_fails_the_task_and_is_told_of_its_account(world: World, twin: Twin) -> None:
    await add(world, twin, "first", FIRST)
    twin.refused.add(FIRST)
    answer = await create(world, account="first")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unauthorized")
    (fal,) = [
        each for each in (await world.api.get("/api/v1/providers")).json()["data"]["data"] if each["name"] == "fal"
    ]
    of_environment, first = fal["accounts"]
    assert of_environment["refusal"] is None
    assert "'first'" in first["refusal"]


async def test_credentials_are_in_no_row_no_answer_and_no_log(
    world: World, twin: Twin, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        added = await add(world, twin, "first", FIRST)
        task = await world.ended(await created(world, account="first"))
        await world.api.patch(f"{ACCOUNTS}/first", json={"credentials": {"api_key": SECOND}})
        answers = [
            added,
            task,
            (await world.api.get("/api/v1/providers")).text,
            (await world.api.get("/api/v1/audit")).text,
        ]
    rows = await everything(world)
    for key in (FIRST, SECOND):
        assert key not in str(answers)
        assert key not in rows
        assert key not in caplog.text
    assert "provider_account.change" in answers[-1]
    assert added["credentials"] == [{"name": "api_key", "hint": FIRST[:4]}]


async def everything(world: World) -> str:
    """Return all rows of the database as text."""
    from sqlalchemy import select

    from models import metadata
    from receiver.storage.database import Database

    async with await Database.open(world.settings) as database:
        return str([await database.read(select(table)) for table in metadata.sorted_tables])
