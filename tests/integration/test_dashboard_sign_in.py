"""Signing in to the dashboard: keys, cookies, the tokens of forms, one-time links, single sign-on, and how it ends."""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.domain.sign_in import SignIn, new_session
from receiver.serving.master_keys import master_keys
from tests.fakes.command import Ringback
from tests.fakes.dashboard import COOKIE, TOKEN, browser, new_key, sign_in, signed_in, token_of
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("dashboard")) as world:
        yield world


async def test_who_is_not_signed_in_is_led_to_the_form_and_then_to_the_page(world: World) -> None:
    async with browser(world) as client:
        answer = await client.get("/tasks?status=failed")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Ftasks%3Fstatus%3Dfailed")
        answer = await sign_in(client, next="/tasks?status=failed")
        assert (answer.status_code, answer.headers["location"]) == (303, "/tasks?status=failed")
        assert (await client.get("/tasks?status=failed")).status_code == 200


@pytest.mark.parametrize("onward", ["//evil.example/", "https://evil.example/", "/\\evil.example", "tasks"])
async def test_a_sign_in_never_leads_elsewhere(world: World, onward: str) -> None:
    async with browser(world) as client:
        assert (await sign_in(client, next=onward)).headers["location"] == "/"


async def test_the_cookie_is_for_http_alone_and_has_no_key_in_it(world: World) -> None:
    async with browser(world) as client:
        answer = await sign_in(client)
        (cookie,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith(COOKIE)]
        assert {"httponly", "path=/", "samesite=lax", "max-age=43200"} <= set(cookie.lower().split("; "))
        assert "secure" not in cookie.lower()
        assert API_KEY not in cookie
        answer = await client.get("/tasks")
        assert API_KEY not in answer.text


async def test_behind_tls_the_cookie_is_secure(world: World) -> None:
    async with browser(world, headers={"x-forwarded-proto": "https"}) as client:
        assert "; secure" in (await client.get("/sign-in")).headers["set-cookie"].lower()


async def test_a_cookie_that_was_changed_is_none(world: World) -> None:
    async with signed_in(world) as client:
        value = client.cookies[COOKIE]
        client.cookies.clear()
        client.cookies.set(COOKIE, ("a" if value[0] != "a" else "b") + value[1:])
        assert (await client.get("/tasks")).status_code == 303


@pytest.mark.parametrize("age", [timedelta(hours=12, minutes=1), timedelta(days=8)])
async def test_a_session_ends_by_itself(world: World, age: timedelta) -> None:
    signing = SignIn(KeyRing(master_keys(world.settings)))
    key = await new_key(world, "read")
    session = new_session(utc_now() - age, key_uid=key["id"])
    async with browser(world) as client:
        client.cookies.set(COOKIE, signing.sign_session(session if age.days == 0 else session.seen(utc_now())))
        assert (await client.get("/tasks")).status_code == 303


async def test_a_sign_in_begins_a_new_session(world: World) -> None:
    async with browser(world) as client:
        token = await token_of(client)
        await client.post("/sign-in", data={"csrf": token, "key": API_KEY})
        assert (await client.post("/sign-out", data={"csrf": token})).status_code == 403


async def test_a_form_without_the_token_of_its_session_does_nothing(world: World) -> None:
    task = await world.created({"pending_seconds": 30})
    async with browser(world) as client, browser(world) as other:
        assert (await client.post("/sign-in", data={"key": API_KEY})).status_code == 403
        await sign_in(client)
        await sign_in(other)
        for token in ("", "nonsense", await token_of(other, "/tasks")):
            answer = await client.post(f"/tasks/{task}/cancel", data={"csrf": token})
            assert answer.status_code == 403
        assert (await world.task(task))["status"] != "cancelled"
        answer = await client.post(f"/tasks/{task}/cancel", data={"csrf": await token_of(client, "/tasks")})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/tasks/{task}")
    assert (await world.task(task))["status"] == "cancelled"


async def test_a_revoked_key_ends_its_sessions(world: World) -> None:
    key = await new_key(world, "read")
    async with browser(world) as client:
        await sign_in(client, key["key"])
        assert (await client.get("/tasks")).status_code == 200
        await world.api.delete(f"/api/v1/keys/{key['id']}")
        assert (await client.get("/tasks")).status_code == 303


async def test_an_expired_key_ends_its_sessions(world: World) -> None:
    key = await new_key(world, "read", expires_at=(utc_now() + timedelta(seconds=0.4)).isoformat())
    async with browser(world) as client:
        await sign_in(client, key["key"])
        while (await client.get("/tasks")).status_code == 200:
            pass
        assert "expired" in (await sign_in(client, key["key"])).text


async def test_signing_out_ends_the_session_of_this_browser(world: World) -> None:
    async with signed_in(world) as client:
        answer = await client.post("/sign-out", data={"csrf": await token_of(client, "/tasks")})
        assert answer.headers["location"] == "/sign-in"
        assert COOKIE not in client.cookies
        assert (await client.get("/tasks")).status_code == 303


async def test_a_read_key_sees_no_controls_and_can_change_nothing(world: World) -> None:
    task = await world.created({"pending_seconds": 30})
    key = await new_key(world, "read")
    async with browser(world) as client:
        await sign_in(client, key["key"])
        for path in ("/tasks", f"/tasks/{task}"):
            assert "formaction" not in (await client.get(path)).text
        data = {"csrf": await token_of(client, "/tasks")}
        for act in ("cancel", "refresh", "retry"):
            answer = await client.post(f"/tasks/{task}/{act}", data=data)
            assert (answer.status_code, "needs a key with the scope write" in answer.text) == (403, True)
    assert (await world.task(task))["status"] != "cancelled"


async def test_wrong_keys_are_slowed_together_with_those_of_programs(tmp_path: Path) -> None:
    async with in_process(tmp_path, wrong_key_rate="3/m") as world, browser(world) as client:
        for number in range(2):
            assert (await world.api.get("/api/v1/tasks", headers={"x-api-key": f"wrong-{number}"})).status_code == 401
        assert (await sign_in(client, "rb_wrong")).status_code == 401
        answer = await sign_in(client, "rb_wrong_too")
        assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
        assert (await sign_in(client)).status_code == 303


async def test_a_link_signs_in_once_with_the_scope_of_its_key(world: World) -> None:
    key = await new_key(world, "read")
    answer = await world.api.post("/api/v1/dashboard-links", headers={"x-api-key": key["key"]})
    link = answer.json()["data"]
    assert link["scope"] == "read"
    async with browser(world) as client, browser(world) as late:
        assert (await client.get(link["path"], headers={"sec-purpose": "prefetch"})).status_code == 204
        answer = await client.get(link["path"])
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "may read<" in (await client.get("/tasks")).text
        answer = await late.get(link["path"])
        assert (answer.status_code, "was used before" in answer.text) == (401, True)
        assert (await late.get("/tasks")).status_code == 303


async def test_the_command_line_makes_a_link_that_signs_in(world: World) -> None:
    status, printed, _ = await Ringback(world).run("dashboard", "--print")
    assert (status, printed.startswith(f"{world.base}/sign-in?link=")) == (0, True)
    assert (await Ringback(world).data("dashboard"))["scope"] == "admin"
    async with browser(world) as client:
        assert (await client.get(printed.strip())).headers["location"] == "/"
        assert (await client.get("/tasks")).status_code == 200


async def test_a_link_that_is_too_old_or_none_of_ours_signs_nobody_in(world: World) -> None:
    signing = SignIn(KeyRing(master_keys(world.settings)))
    key = await new_key(world, "read")
    old, _ = signing.new_link(key["id"], utc_now() - timedelta(seconds=61))
    forged, _ = SignIn(KeyRing(["another-master-key"])).new_link(key["id"], utc_now())
    session = signing.sign_session(new_session(utc_now(), key_uid=key["id"]))
    async with browser(world) as client:
        for token in (old, forged, session, "nonsense"):
            assert (await client.get("/sign-in", params={"link": token})).status_code == 401
        assert (await client.get("/tasks")).status_code == 303


async def test_a_session_that_an_earlier_master_key_signed_goes_on() -> None:
    now = utc_now()
    session = new_session(now, key_uid="some-key")
    value = SignIn(KeyRing(["first-key"])).sign_session(session)
    read = SignIn(KeyRing(["first-key", "second-key"])).read_session(value, now)
    assert read is not None
    assert (read.nonce, read.key_uid) == (session.nonce, "some-key")
    assert SignIn(KeyRing(["second-key"])).read_session(value, now) is None


async def test_a_person_whom_a_trusted_proxy_names_may_read(tmp_path: Path) -> None:
    async with in_process(tmp_path, dashboard_trusted_header="X-Person") as world:
        task = await world.created({"pending_seconds": 30})
        async with browser(world, headers={"x-person": "ada@example.com"}) as client:
            answer = await client.get("/tasks")
            assert (answer.status_code, "ada@example.com" in answer.text) == (200, True)
            data = {"csrf": await token_of(client, "/tasks")}
            assert (await client.post(f"/tasks/{task}/cancel", data=data)).status_code == 403
            client.headers["x-person"] = "eve@example.com"  # another one, in the same browser
            answer = await client.get("/tasks")
            assert ("eve@example.com" in answer.text, "ada@example.com" in answer.text) == (True, False)
            del client.headers["x-person"]
            assert (await client.get("/tasks")).status_code == 303
        async with browser(world) as client:
            two = [("x-person", "ada@example.com"), ("x-person", "eve@example.com")]
            assert (await client.get("/tasks", headers=two)).status_code == 303


async def test_a_person_may_do_what_the_setting_says(tmp_path: Path) -> None:
    async with in_process(tmp_path, dashboard_trusted_header="X-Person", dashboard_trusted_scope="write") as world:
        task = await world.created({"pending_seconds": 30})
        async with browser(world, headers={"x-person": "ada"}) as client:
            data = {"csrf": await token_of(client, "/tasks")}
            assert (await client.post(f"/tasks/{task}/cancel", data=data)).status_code == 303
            async with client.stream("GET", "/live") as answer:  # nothing ends it: there is no key that could
                assert (await anext(answer.aiter_lines())).startswith("retry:")
        assert (await world.task(task))["status"] == "cancelled"


@pytest.mark.parametrize("settings", [{}, {"dashboard_trusted_header": "X-Person", "trusted_proxies": "10.0.0.1"}])
async def test_nobody_else_is_believed_to_name_a_person(tmp_path: Path, settings: Mapping[str, Any]) -> None:
    async with in_process(tmp_path, **settings) as world, browser(world, headers={"x-person": "ada"}) as client:
        assert (await client.get("/tasks")).status_code == 303


async def test_a_dashboard_that_is_turned_off_is_not_there(tmp_path: Path) -> None:
    async with in_process(tmp_path, dashboard="false") as world, browser(world) as client:
        for path in ("/", "/tasks", "/sign-in", "/live"):
            assert (await client.get(path)).json()["error"]["code"] == "not_found"
        answer = await world.api.post("/api/v1/dashboard-links")
        assert answer.json()["error"]["code"] == "dashboard_off"


@pytest.mark.parametrize("strips", [True, False], ids=["stripped", "handed-on"])
async def test_below_a_prefix_everything_stays_below_it(tmp_path: Path, strips: bool) -> None:
    async with in_process(tmp_path, root_path="/ringback") as world, browser(world) as client:
        prefix = "" if strips else "/ringback"
        answer = await client.get(f"{prefix}/tasks")
        assert answer.headers["location"].startswith("/ringback/sign-in?next=%2Ftasks")
        answer = await client.get(f"{prefix}/sign-in")
        assert "path=/ringback" in answer.headers["set-cookie"].lower()
        cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        found = TOKEN.search(answer.text)
        assert found is not None
        answer = await client.post(
            f"{prefix}/sign-in", data={"csrf": found[1], "key": API_KEY, "next": "/tasks"}, headers=cookie
        )
        assert answer.headers["location"] == "/ringback/tasks"
        cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        page = (await client.get(f"{prefix}/tasks", headers=cookie)).text
        links = re.findall(r'(?:href|src|action|formaction|data-live|data-up)="([^"#][^"]*)"', page)
        assert links
        assert [link for link in links if not link.startswith("/ringback/")] == []
        for link in {link for link in links if "/static/" in link}:
            path = urlsplit(link).path.removeprefix("/ringback" if strips else "")
            assert (await client.get(path)).status_code == 200
