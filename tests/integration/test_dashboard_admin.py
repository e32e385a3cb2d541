"""The pages of keys, organizations and the audit log, without a browser: what is shown once, and who may what."""

import re
from collections.abc import AsyncIterator
from html import unescape

import httpx
import pytest
import pytest_asyncio

from receiver.dashboard.audit import changes
from receiver.domain.ids import new_id
from tests.fakes.dashboard import browser, new_key, rows, sign_in, signed_in, token_of
from tests.fakes.world import World, in_process
from tests.integration.test_dashboard_pages import HOSTILE

pytestmark = pytest.mark.asyncio(loop_scope="module")

_KEY = re.compile(r'<code id="made-key">([^<]+)</code>')


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("admin")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


async def send(client: httpx.AsyncClient, path: str, page: str = "/keys", **fields: str) -> httpx.Response:
    """Send a form of a page."""
    return await client.post(path, data={"csrf": await token_of(client, page), "once": new_id(), **fields})


async def entries(world: World, **query: str) -> list[dict[str, object]]:
    return list((await world.api.get("/api/v1/audit", params=query)).json()["data"]["data"])


async def test_a_key_is_shown_once_and_works(world: World, client: httpx.AsyncClient) -> None:
    answer = await send(client, "/keys", name="a worker", scope="read", expires_at="2999-01-31", rate_limit="2.5")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    found = _KEY.search(answer.text)
    assert found is not None
    assert found[1] not in str(answer.headers)
    own = await world.api.get("/api/v1/organization", headers={"x-api-key": found[1]})
    assert own.json()["data"]["key"]["scope"] == "read"
    listed = (await client.get("/keys")).text
    assert ("a worker" in listed, "2999-01-31" in listed, "2.5 a second" in listed) == (True, True, True)
    assert (found[1] in listed, f"<code>{found[1][:7]}…</code>" in listed) == (False, True)


async def test_a_form_sent_twice_makes_one_key(world: World, client: httpx.AsyncClient) -> None:
    name, data = new_id(), {"csrf": await token_of(client, "/keys"), "once": new_id()}
    for _ in range(2):
        assert (await client.post("/keys", data={**data, "name": name})).status_code == 200
    names = [key["name"] for key in (await world.api.get("/api/v1/keys?limit=200")).json()["data"]["data"]]
    assert names.count(name) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "n", "expires_at": "2001-01-01"}, "expires_at: must be in the future"),
        ({"name": "n", "rate_limit": "many"}, "rate_limit:"),
        ({"name": "n", "rate_limit": "nan"}, "rate_limit:"),
        ({"name": " "}, "name:"),
        ({"name": "n", "scope": "god"}, "scope:"),
    ],
)
async def test_a_wrong_field_is_told_in_the_form_that_keeps_the_others(
    client: httpx.AsyncClient, fields: dict[str, str], said: str
) -> None:
    answer = await send(client, "/keys", **fields)
    assert (answer.status_code, said in answer.text) == (400, True)
    assert ('value="n"' in answer.text) == (fields["name"] == "n")


async def test_a_key_is_revoked_after_a_question(world: World, client: httpx.AsyncClient) -> None:
    key = await new_key(world, "write", name=HOSTILE)
    path = f"/keys/{key['id']}/revoke"
    asked = (await client.get(path)).text
    assert ("Revoke the key" in asked, "You are signed in with this key" in asked) == (True, False)
    assert "<script>alert" not in asked
    answer = await send(client, path, path, back="/keys")
    assert answer.headers["location"] == "/keys"
    assert "is revoked." in (await client.get("/keys")).text
    assert (await client.get("/keys")).text.count(key["id"]) == 0
    refused = await world.api.get("/api/v1/organization", headers={"x-api-key": key["key"]})
    assert refused.status_code == 401
    assert (await client.get(path)).status_code == 404


async def test_who_revokes_the_key_of_the_session_is_signed_out(world: World) -> None:
    key = await new_key(world, "admin")
    async with browser(world) as own:
        await sign_in(own, key["key"])
        path = f"/keys/{key['id']}/revoke"
        assert "You are signed in with this key" in (await own.get(path)).text
        answer = await send(own, path, path)
        assert answer.headers["location"] == "/sign-in"
        assert "The key that you were signed in with is revoked." in (await own.get("/sign-in")).text
        assert (await own.get("/keys")).status_code == 303


async def test_keys_of_less_scope_see_no_page_of_administrators(world: World, client: httpx.AsyncClient) -> None:
    target = (await new_key(world, "read"))["id"]
    for scope in ("read", "write"):
        async with browser(world) as other:
            await sign_in(other, (await new_key(world, scope))["key"])
            tasks = (await other.get("/tasks")).text
            for path in ("/keys", "/organizations", "/audit"):
                assert f'href="{path}"' not in tasks
            for path in ("/keys", "/audit", f"/keys/{target}/revoke"):
                assert (await other.get(path)).status_code == 403
            for path in ("/keys", "/organizations", f"/keys/{target}/revoke"):
                assert (await send(other, path, "/tasks", name="mine")).status_code == 403
    assert (await client.get(f"/keys/{target}/revoke")).status_code == 200


async def test_forms_of_administrators_need_the_token_of_the_session(client: httpx.AsyncClient) -> None:
    for path in ("/keys", f"/keys/{new_id()}/revoke", "/organizations", f"/organizations/{new_id()}"):
        assert (await client.post(path, data={"csrf": "wrong", "name": "n"})).status_code == 403


async def test_the_operator_makes_an_organization_and_sets_its_limits(world: World, client: httpx.AsyncClient) -> None:
    name = new_id()[:13]
    made = await send(client, "/organizations", name=name)
    found = _KEY.search(made.text)
    assert found is not None
    (path,) = re.findall(r'class="button" href="(/organizations/[^"]+)"', made.text)
    answer = await send(client, path, **{"limit.webhooks": "5", "limit.streams": "unlimited", "limit.open_tasks": ""})
    assert answer.headers["location"] == path
    page = (await client.get(path)).text
    assert ("it holds from now on" in page, 'name="limit.webhooks" value="5"' in page) == (True, True)
    own = (await world.api.get("/api/v1/organization", headers={"x-api-key": found[1]})).json()["data"]
    assert own["set_limits"] == {"webhooks": 5, "streams": "unlimited"}
    await send(client, path, **{"limit.webhooks": "", "limit.streams": "unlimited", "owns_provider_account": "on"})
    own = (await world.api.get("/api/v1/organization", headers={"x-api-key": found[1]})).json()["data"]
    assert (own["set_limits"], own["owns_provider_account"]) == ({"streams": "unlimited"}, True)
    for fields, said in (
        ({"limit.webhooks": "-1"}, "webhooks must be a number of 0 or more"),
        ({}, "The form has what is set already."),
    ):
        await send(client, path, **fields, owns_provider_account="on")
        assert said in (await client.get(path)).text
    again = await send(client, "/organizations", name=name)
    assert (again.status_code, "there is an organization" in again.text) == (409, True)
    assert f'href="{path}"' in (await client.get("/organizations")).text


async def test_an_account_is_added_rotated_checked_and_removed(world: World, client: httpx.AsyncClient) -> None:
    keys = ("a-key-of-fal-3Rm8Wq5Tz1Lp", "a-key-of-fal-9Xd2Bf7Nv4Kc")
    name = f"a-{new_id()}"
    fields = {"name": name, "credential.api_key": keys[0], "concurrency": "4"}
    pages = [await send(client, "/providers/fal/accounts", **{**fields, "concurrency": "none"})]
    assert (pages[0].status_code, "concurrency: " in pages[0].text) == (400, True)
    assert (await send(client, "/providers/fal/accounts", **fields)).headers["location"] == "/providers"
    pages.append(await client.get("/providers"))
    assert "webhook_secret, if there is one" in pages[-1].text
    (path,) = re.findall(rf'href="(/providers/fal/accounts/[^"]+)">{name}<', pages[-1].text)
    for act, said in (
        ("check", "the provider accepts the key"),
        ("rotate", "The new credentials are in use."),
        ("default", "use it from now on"),
    ):
        pages.append(await send(client, f"{path}/{act}", **{"credential.api_key": keys[1]}))
        assert pages[-1].headers["location"] == path
        pages.append(await client.get(path))
        assert said in unescape(pages[-1].text)
    pages.append(await send(client, f"{path}/remove"))
    assert name not in (await client.get("/providers")).text.split("The account is removed")[0]
    text = "".join(each.text + str(each.headers) for each in pages)
    assert [key for key in keys if key in text] == []
    async with browser(world) as other:
        await sign_in(other, (await new_key(world, "read"))["key"])
        page = (await other.get("/providers")).text
        assert ("<h2>fal</h2>" in page, "Add an account" in page) == (True, False)
        assert (await send(other, "/providers/fal/accounts", "/tasks", **fields)).status_code == 403


async def test_an_admin_of_another_organization_sees_its_own_alone(world: World, client: httpx.AsyncClient) -> None:
    found = _KEY.search((await send(client, "/organizations", name=(name := new_id()[:13]))).text)
    assert found is not None
    async with browser(world) as other:
        await sign_in(other, found[1])
        page = (await other.get("/organizations")).text
        assert (f"<h1>{name}</h1>" in page, "Limits and use" in page, "limit.webhooks" in page) == (True, True, False)
        assert "default</a>" not in page
        organization = (await world.api.get("/api/v1/organization")).json()["data"]["id"]
        assert (await other.get(f"/organizations/{organization}")).status_code == 403
        for path in ("/organizations", f"/organizations/{organization}"):
            assert (await send(other, path, "/tasks", name="mine")).status_code == 403
        keys = (await other.get("/keys")).text
        assert len(rows(keys)) == 1


async def test_the_audit_log_shows_what_differs_by_every_filter(world: World, client: httpx.AsyncClient) -> None:
    name = new_id()[:13]
    made = await send(client, "/organizations", name=name)
    (path,) = re.findall(r'class="button" href="(/organizations/[^"]+)"', made.text)
    await send(client, path, **{"limit.webhooks": "5"})
    uid = path.rpartition("/")[2]
    changed, created = await entries(world, target=uid)
    page = (await client.get("/audit", params={"target": uid})).text
    assert rows(page) == [changed["id"], created["id"]]
    assert "limits.webhooks" in page
    assert f'href="{path}"' in page
    for query in (
        {"action": "organization.change"},
        {"key_id": str(changed["key_id"])},
        {"since": str(created["created_at"])},
        {"until": "2999-01-01"},
    ):
        wanted = [each["id"] for each in await entries(world, target=uid, **query)]
        assert rows((await client.get("/audit", params={"target": uid, **query})).text) == wanted, query
    links = [unescape(each) for each in re.findall(r'class="row-link" href="([^"]+)"', page)]
    assert f"/audit?target={uid}&action=organization.change" in links
    answer = await client.get("/audit?since=noon")
    assert (answer.status_code, "This filter does not work" in answer.text) == (400, True)


async def test_differences_stand_side_by_side() -> None:
    before = {"limits": {"webhooks": 5}, "name": "a", "same": 1, "big": 9007199254740993}
    after = {"limits": {"streams": "unlimited"}, "name": "b", "same": 1, "big": None}
    assert list(changes(before, after)) == [
        ("limits.webhooks", "5", ""),
        ("name", "a", "b"),
        ("big", "9007199254740993", ""),
        ("limits.streams", "", "unlimited"),
    ]
    assert list(changes(None, {"event_types": ["task.*", "run.*"]})) == [("event_types", "", "task.*, run.*")]
    assert list(changes({"at": "2999-01-31T00:00:00.000000Z"}, None)) == [("at", "2999-01-31 00:00:00 UTC", "")]
    assert list(changes(None, None)) == []
