"""The pages of webhooks and deliveries, without a browser: forms, secrets, what is refused, what strangers send."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.responses import Response

from receiver.clock import utc_now
from receiver.dashboard.webhook_fields import FormFault, changes, fields_of, form_of, new_form
from receiver.dashboard.webhook_numbers import percent, pictures_of
from receiver.domain.ids import new_id
from tests.fakes.dashboard import browser, new_key, sign_in, signed_in, token_of
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\u2066\x1b[31m\"'"
ACTS = ("new", "{}/change", "{}/test", "{}/rotate", "{}/replay", "{}/remove", "{}/disable", "{}/enable")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("dashboard"), retry_schedule="0") as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with signed_in(world) as client:
        yield client


async def send(client: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    """Send the form of a page."""
    return await client.post(path, data={"csrf": await token_of(client, "/webhooks"), "once": new_id(), **fields})


async def read(world: World, path: str, **query: Any) -> Any:
    answer = await world.api.get(f"/api/v1{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def settled(world: World, webhook: dict[str, Any], task: str, status: str) -> dict[str, Any]:
    """Wait for a delivery of a task to a webhook that is in a state; return it."""
    query = {"webhook_id": webhook["id"], "task_id": task, "status": status}
    while not (found := (await read(world, "/deliveries", **query))["data"]):
        await world.api.get("/readyz")
    return dict(found[0])


async def test_every_field_of_the_api_is_in_the_form(world: World, client: httpx.AsyncClient) -> None:
    form = {
        "endpoint_url": f"{world.subscriber.base}/every",
        "description": "for the shop",
        "format": "cloudevents",
        "signature": "v1a",
        "event:task.failed": "on",
        "event:run.completed": "on",
        "headers": "X-Shop: planted-header-value\nX-Two: b: c",
        "filters": '{"metadata": {"customer": 9007199254740993}}',
        "rate_limit": "2.5",
        "max_in_flight": "3",
        "ordered": "on",
    }
    answer = await send(client, "/webhooks/new", **form)
    assert answer.status_code == 303, answer.text  # the private key stays here, so nothing is to be shown
    (webhook,) = (await read(world, "/webhooks", limit=1))["data"]
    assert {name: webhook[name] for name in ("description", "format", "signature", "rate_limit", "max_in_flight")} == {
        "description": "for the shop",
        "format": "cloudevents",
        "signature": "v1a",
        "rate_limit": 2.5,
        "max_in_flight": 3,
    }
    assert (webhook["ordered"], webhook["event_types"]) == (True, ["run.completed", "task.failed"])
    assert webhook["filters"] == {"metadata": {"customer": [9007199254740993]}}
    assert list(webhook["headers"]) == ["X-Shop", "X-Two"]
    for path in (f"/webhooks/{webhook['id']}", f"/webhooks/{webhook['id']}/change"):
        page = (await client.get(path)).text
        assert ("planted-header-value" in page, "9007199254740993" in page) == (False, True)


async def test_a_secret_is_in_the_answer_that_made_it_and_nowhere_else(
    world: World, client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    once, token = new_id(), await token_of(client, "/webhooks")
    form = {"endpoint_url": f"{world.subscriber.base}/secret", "format": "standard", "event:task.failed": "on"}
    form |= {"signature": "v1", "csrf": token, "once": once}
    answers = [await client.post("/webhooks/new", data=form) for _ in range(2)]
    secrets = [re.findall(r"whsec_[A-Za-z0-9+/=]+", answer.text) for answer in answers]
    assert (len(secrets[0]), secrets[0] == secrets[1]) == (1, True)  # sent twice it is one webhook
    assert answers[0].headers["cache-control"] == "no-store"
    assert "ringback_notice" not in answers[0].headers.get("set-cookie", "")
    (webhook,) = (await read(world, "/webhooks", limit=1))["data"]
    rotated = await send(client, f"/webhooks/{webhook['id']}/rotate", overlap_seconds="60")
    (new,) = re.findall(r"whsec_[A-Za-z0-9+/=]+", rotated.text)
    assert [new] != secrets[0]
    pages = [f"/webhooks/{webhook['id']}{part}" for part in ("", "/change", "/rotate", "/test", "/replay", "/remove")]
    for path in ("/webhooks", *pages):
        assert "whsec_" not in (await client.get(path)).text
    assert "whsec_" not in "".join(capfd.readouterr())


async def test_a_form_that_is_refused_keeps_what_was_typed_but_the_secret(
    world: World, client: httpx.AsyncClient
) -> None:
    form = {"endpoint_url": f"{world.subscriber.base}/x", "format": "standard", "signature": "v1", "description": "abc"}
    for field, value, told in (
        ("filters", "{nothing", "this is no JSON"),
        ("filters", '{"color": "red"}', "unknown filter"),
        ("headers", "no colon", "one header a line"),
        ("max_in_flight", "many", "this is no whole number"),
        ("rate_limit", "-1", "greater than 0"),
        ("rate_limit", "nan", "this is no number"),
        ("event:ping", "on", "name at least one event type"),
        ("endpoint_url", "ftp://x", "endpoint_url"),
    ):
        wanted = {**form, "event:task.failed": "on", "secret": "planted-secret-of-a-form", field: value}
        if field == "event:ping":
            wanted.pop("event:task.failed")
        answer = await send(client, "/webhooks/new", **wanted)
        assert (answer.status_code, told in unescape(answer.text)) == (400, True), (field, answer.text)
        assert ('value="abc"' in answer.text, "planted-secret-of-a-form" in answer.text) == (True, False)
        assert "has to be typed again" in answer.text


async def test_a_change_sends_what_differs_and_never_what_another_changed(
    world: World, client: httpx.AsyncClient
) -> None:
    webhook = await world.webhook(headers={"X-A": "kept"}, event_types=["task.failed"], rate_limit=5)
    path = f"/webhooks/{webhook['id']}"
    webhook = await read(world, path)
    form = {**form_of(webhook), "seen": webhook["updated_at"]}
    answer = await send(client, f"{path}/change", **form)
    assert (answer.status_code, (await read(world, path))["updated_at"]) == (303, webhook["updated_at"])
    answer = await send(client, f"{path}/change", **{**form, "rate_limit": "", "description": "new"})
    changed = await read(world, path)
    assert (answer.status_code, changed["rate_limit"], changed["description"]) == (303, None, "new")
    assert (changed["headers"], changed["event_types"]) == ({"X-A": "***"}, ["task.failed"])
    answer = await send(client, f"{path}/change", **{**form, "description": "late"})
    assert (answer.status_code, "changed by someone else" in answer.text) == (400, True)
    moved = {**form, "seen": changed["updated_at"], "endpoint_url": "http://127.0.0.2:9/"}
    assert "which must not get the present values of X-A" in (await send(client, f"{path}/change", **moved)).text
    scheme = {**form_of(changed), "seen": changed["updated_at"], "signature": "v1a"}
    assert (await send(client, f"{path}/change", **scheme)).status_code == 303
    assert (await read(world, path))["public_key"] in (await client.get(path)).text


async def test_a_test_shows_what_the_endpoint_answered(world: World, client: httpx.AsyncClient) -> None:
    webhook = await world.webhook(headers={"X-Token": "planted-header-value"})
    world.subscriber.answer = lambda _number, _request: Response(HOSTILE, 418)
    try:
        page = (await send(client, f"/webhooks/{webhook['id']}/test")).text
    finally:
        world.subscriber.answer = lambda _number, _request: 200
    assert ("not accepted" in page, "HTTP 418" in page, "planted-header-value" in page) == (True, True, False)
    assert ("<script>alert" in page, "\\u202egnp.exe" in page) == (False, True)


async def test_a_webhook_is_switched_off_and_on_and_removed(world: World, client: httpx.AsyncClient) -> None:
    webhook = await world.webhook()
    path = f"/webhooks/{webhook['id']}"
    await send(client, f"{path}/disable")
    assert (await read(world, path))["is_active"] is False
    answer = await send(client, f"{path}/replay", kind="recover", since="2026-01-01")
    assert (answer.status_code, "set is_active to true" in answer.text) == (400, True)
    await send(client, f"{path}/enable")
    assert (await read(world, path))["is_active"] is True
    assert "Remove the webhook?" in (await client.get(f"{path}/remove")).text
    answer = await send(client, f"{path}/remove")
    assert (answer.status_code, answer.headers["location"]) == (303, "/webhooks")
    assert (await world.api.get(f"/api/v1{path}")).status_code == 404
    assert (await client.get(path)).status_code == 404


async def test_a_read_key_sees_no_controls_and_is_refused(world: World) -> None:
    webhook = await world.webhook()
    task = await world.created()
    await world.ended(task)
    delivery = await settled(world, webhook, task, "delivered")
    key = await new_key(world, "read")
    async with browser(world) as reader:
        await sign_in(reader, key["key"])
        for path in ("/webhooks", f"/webhooks/{webhook['id']}", "/deliveries", f"/deliveries/{delivery['id']}"):
            page = (await reader.get(path)).text
            assert re.findall(r"<form[^>]*method=\"post\" action=\"/(?!theme|sign-out)|formaction", page) == []
            assert "Add a webhook" not in page
        token = await token_of(reader, "/webhooks")
        for act in ACTS:
            path = f"/webhooks/{act.format(webhook['id'])}"
            assert (await reader.post(path, data={"csrf": token, "seen": webhook["updated_at"]})).status_code == 403, (
                act
            )
            if not act.endswith("able"):
                assert (await reader.get(path)).status_code == 403, act
        assert (await reader.post(f"/deliveries/{delivery['id']}/retry", data={"csrf": token})).status_code == 403
    assert (await read(world, f"/webhooks/{webhook['id']}"))["is_active"] is True


async def test_what_was_given_up_is_recovered_and_what_matched_is_replayed(
    world: World, client: httpx.AsyncClient
) -> None:
    webhook = await world.webhook(event_types=["task.completed", "task.created"])
    path = f"/webhooks/{webhook['id']}"
    world.subscriber.answer = lambda _number, _request: 500
    task = await world.created()
    await world.ended(task)
    dead = await settled(world, webhook, task, "dead")
    world.subscriber.answer = lambda _number, _request: 200
    listed = (await client.get("/deliveries", params={"webhook_id": webhook["id"], "status": "dead"})).text
    (again,) = re.findall(r'href="([^"]+)">Send again…', listed)
    assert unescape(again) == f"{path}/replay?kind=recover"
    page = (await client.get(unescape(again))).text
    assert page.index("What was given up") < page.index("All that matched")
    answer = await send(client, f"{path}/replay", kind="recover", since="noon")
    assert (answer.status_code, 'value="noon"' in answer.text) == (400, True)
    answer = await send(client, f"{path}/replay", kind="recover", since=f"{utc_now() - timedelta(hours=1):%FT%T}")
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    while (await read(world, f"/deliveries/{dead['id']}"))["status"] != "delivered":
        await world.api.get("/readyz")
    since = f"{utc_now() - timedelta(hours=1):%FT%T}"
    await send(client, f"{path}/replay", kind="replay", since=since, **{"event:task.created": "on"})
    newest, oldest = (await read(world, f"{path}/replays"))["data"]
    assert (oldest["kind"], newest["kind"], newest["event_types"]) == ("recover", "replay", ["task.created"])
    for place in (path, f"{path}/replays"):
        page = (await client.get(place)).text
        assert ("what was given up" in page, "all that matched" in page) == (True, True)


async def test_a_replay_is_cancelled_with_what_it_has_not_sent(world: World, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await world.ended(await world.created())
    webhook = await world.webhook(event_types=["task.completed"], max_in_flight=1)
    path, answered = f"/webhooks/{webhook['id']}", asyncio.Event()

    async def held() -> int:
        await answered.wait()
        return 200

    world.subscriber.answer = lambda _number, _request: held()
    chosen = {"event:task.completed": "on", "since": f"{utc_now() - timedelta(hours=1):%FT%T}"}
    await send(client, f"{path}/replay", kind="replay", **chosen)
    while (replay := (await read(world, f"{path}/replays"))["data"][0])["pending"] < 3:
        await world.api.get("/readyz")
    (button,) = re.findall(r'action="([^"]+/cancel)"', (await client.get(path)).text)
    assert button == f"{path}/replays/{replay['id']}/cancel"
    answer = await send(client, button)
    answered.set()
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    page = (await client.get(path)).text
    assert ("The replay is cancelled." in page, f"{button}" in page) == (True, False)
    now = await read(world, f"{path}/replays/{replay['id']}")
    assert (now["status"], now["cancelled"] >= 2) == ("cancelled", True)
    world.subscriber.answer = lambda _number, _request: 200


async def test_a_delivery_shows_its_request_its_attempts_and_why(world: World, client: httpx.AsyncClient) -> None:
    webhook = await world.webhook(event_types=["task.completed"], headers={"X-Token": "planted-header-value"})
    world.subscriber.answer = lambda _number, _request: Response(HOSTILE, 503)
    task = await world.created(metadata={"n": 9007199254740993, HOSTILE: HOSTILE})
    await world.ended(task)
    delivery = await settled(world, webhook, task, "dead")
    world.subscriber.answer = lambda _number, _request: 200
    page = unescape((await client.get(f"/deliveries/{delivery['id']}")).text)
    for told in (
        "HTTP 503",
        "Every attempt of its schedule failed",
        "9007199254740993",
        "\\u202egnp.exe",
        "webhook-id",
    ):
        assert told in page, told
    assert "planted-header-value" not in page
    page = (await client.get(f"/deliveries/{delivery['id']}")).text
    assert "<script>alert" not in page
    for target in (f"/tasks/{task}", f"/webhooks/{webhook['id']}", f"/deliveries?event_id={delivery['event_id']}"):
        assert f'href="{target}"' in page
    await send(client, f"/deliveries/{delivery['id']}/retry", back=f"/deliveries/{delivery['id']}")
    await settled(world, webhook, task, "delivered")


@pytest.mark.parametrize("query", ["status=odd", "created_after=noon", "limit=9999", "cursor=x", "color=red"])
async def test_a_filter_that_the_api_refuses_is_told(world: World, client: httpx.AsyncClient, query: str) -> None:
    webhook = await world.webhook()
    for path in ("/deliveries", f"/webhooks/{webhook['id']}"):
        answer = await client.get(f"{path}?{query}")
        assert (answer.status_code, "This filter does not work" in answer.text) == (400, True)


async def test_a_search_leads_to_what_an_id_is_of(world: World, client: httpx.AsyncClient) -> None:
    webhook = await world.webhook(event_types=["task.completed"])
    task = await world.created()
    await world.ended(task)
    delivery = await settled(world, webhook, task, "delivered")
    for text, leads_to in (
        (delivery["id"], f"/deliveries/{delivery['id']}"),
        (task, f"/deliveries?task_id={task}"),
        (webhook["id"], f"/deliveries?webhook_id={webhook['id']}"),
        (delivery["event_id"], f"/deliveries?event_id={delivery['event_id']}"),
    ):
        answer = await client.get("/deliveries", params={"search": text})
        assert answer.headers["location"] == leads_to
        assert delivery["id"] in (await client.get(leads_to)).text


@pytest.mark.sqlite_only("pure")
async def test_a_form_gives_back_the_webhook_that_it_shows() -> None:
    webhook = {
        **dict.fromkeys(("description", "headers", "filters", "max_in_flight")),
        "endpoint_url": "https://a.example/",
        "format": "standard",
        "signature": "v1",
        "event_types": ["task.failed"],
        "rate_limit": 0.25,
        "ordered": True,
    }
    assert changes(form_of(webhook), webhook) == {}
    assert changes({**form_of(webhook), "secret": "s" * 8}, webhook) == {"secret": "s" * 8}
    assert fields_of(new_form())["event_types"] == ["task.cancelled", "task.completed", "task.failed"]
    with pytest.raises(FormFault):
        fields_of({**new_form(), "headers": "a: 1\na: 2"})


@pytest.mark.sqlite_only("pure")
async def test_pictures_have_few_columns_and_all_attempts() -> None:
    start = utc_now().replace(microsecond=0)
    series: list[dict[str, Any]] = [
        {"at": (start + timedelta(minutes=n)).isoformat(), "attempts": n % 3, "delivered": n % 2 and n % 3, "dead": 0}
        for n in range(720)
    ]
    series = [{**each, "failed": each["attempts"] - each["delivered"]} for each in series]
    numbers = {"attempts": 720, "p50_ms": 4, "p95_ms": 8, "p99_ms": None, "series": series}
    found = pictures_of({"step": "minute", "deliveries": numbers})
    assert found is not None
    assert (found.step, found.latencies) == ("6 min 00 s", [("p50", 4, 50.0), ("p95", 8, 100.0)])
    assert sum(column.value for _, columns, _ in found.sent for column in columns) == 720
    assert max(len(columns) for _, columns, _ in found.sent) == 120
    nothing_yet = {**numbers, "series": [{**each, "attempts": 0, "delivered": 0, "failed": 0} for each in series]}
    assert pictures_of({"step": "minute", "deliveries": nothing_yet}) is None
    assert (percent(0.99999), percent(1.0), percent(None)) == ("99.9 %", "100 %", "")
