"""`/openapi.json` as a reader gets it."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.middleware import Middleware

from receiver.api.paths import PathMiddleware
from receiver.api.routes import routes
from receiver.serving.connection_limits import ConnectionLimits
from tests.fakes.described import described
from tests.fakes.servers import served
from tests.fakes.world import World, in_process

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.sqlite_only("the description is not in the database"),
]
PATH = "/openapi.json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


async def test_it_is_read_without_a_key_and_is_what_answers_are_checked_against(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.base) as stranger:
        answer = await stranger.get(PATH)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    document = answer.json()
    assert [each["url"] for each in document.pop("servers")] == [world.base]
    assert document == described().document


async def test_it_is_answered_again_only_if_it_has_changed(world: World) -> None:
    first = await world.api.get(PATH)
    again = await world.api.get(PATH, headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    changed = await world.api.get(PATH, headers={"if-none-match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)
    assert first.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("api.example.com", "http://api.example.com"),
        ("[::1]:8080", "http://[::1]:8080"),
        ('evil"<script>', "/"),
        ("a b", "/"),
        ("user@host", "/"),
    ],
)
async def test_the_address_is_the_reader_s_if_it_is_one(world: World, host: str, url: str) -> None:
    answer = await world.api.get(PATH, headers={"host": host})
    assert [each["url"] for each in answer.json()["servers"]] == [url]


@pytest.mark.parametrize(
    ("proxies", "given", "url"),
    [
        ("127.0.0.1", {"x-forwarded-host": "public.example.com"}, "http://public.example.com"),
        ("127.0.0.1", {"x-forwarded-host": "public.example.com:8443, inner"}, "http://public.example.com:8443"),
        ("127.0.0.1", {"x-forwarded-host": "a<b>"}, "/"),
        ("192.0.2.1", {"x-forwarded-host": "public.example.com"}, ""),
    ],
)
async def test_the_forwarded_host_is_a_trusted_proxy_s_to_say(proxies: str, given: dict[str, str], url: str) -> None:
    app = Starlette(routes=routes())
    app.state.described_routes = app.routes
    async with (
        served(app, limits=ConnectionLimits(trusted_proxies=proxies)) as base,
        httpx.AsyncClient(base_url=base) as client,
    ):
        answer = await client.get(PATH, headers=given)
    assert [each["url"] for each in answer.json()["servers"]] == [url or base]


@pytest.mark.parametrize("path", [PATH, f"/ringback{PATH}", f"/ringback/{PATH}/"])
async def test_the_address_has_the_prefix_of_a_proxy(path: str) -> None:
    app = Starlette(routes=routes(), middleware=[Middleware(PathMiddleware)])
    app.state.described_routes = app.routes
    transport = httpx.ASGITransport(app, root_path="/ringback")
    async with httpx.AsyncClient(transport=transport, base_url="https://example.com") as client:
        answer = await client.get(path)
    assert [each["url"] for each in answer.json()["servers"]] == ["https://example.com/ringback"]


async def test_its_other_methods_are_refused(world: World) -> None:
    answer = await world.api.post(PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
