"""The guides and the reference, as everyone reads them: no link is dead, and nothing of the API is missing."""

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import httpx
import pytest
import pytest_asyncio

from receiver.api.description.errors import CODES
from receiver.dashboard.guides import GUIDES
from tests.fakes.dashboard import COOKIE, browser, signed_in
from tests.fakes.described import described
from tests.fakes.world import World, in_process

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.sqlite_only("pages that no database changes")]

FOLDER = Path(__file__).parents[2] / "deploy" / "guides"
HOSTILE = '"><script>alert(1)</script>\u202e'


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("docs")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stranger(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(world) as client:
        yield client


def links(page: str) -> set[str]:
    return {unescape(each) for each in re.findall(r'<a [^>]*?href="([^"]*)"', page)}


def anchors(page: str) -> list[str]:
    return re.findall(r' id="([^"]+)"', page)


def entries(page: str) -> dict[str, bool]:
    """Return whether each part of the reference is shown."""
    found = re.findall(r'<(?:article|tr) id="([^"]+)"[^>]* data-entry( hidden)?', page)
    return {anchor: not hidden for anchor, hidden in found}


async def test_no_link_and_no_anchor_of_any_page_is_dead(world: World, stranger: httpx.AsyncClient) -> None:
    pages: dict[str, str] = {}
    wanted: set[tuple[str, str, str]] = set()
    waiting = [f"{world.base}/docs", f"{world.base}/llms.txt"]
    while waiting:
        url = waiting.pop()
        if url in pages:
            continue
        answer = await stranger.get(url, follow_redirects=True)
        assert answer.status_code == 200, url
        pages[url] = answer.text
        is_page = answer.headers["content-type"].startswith("text/html")
        found = links(answer.text) if is_page else set()
        if url.endswith("llms.txt"):
            found = set(re.findall(r"\]\(([^)]+)\)", answer.text))
        for link in found:
            to, anchor = urldefrag(urljoin(url, link))
            assert to.startswith(("https://", world.base)), f"{url} leads to {link}"
            if to.startswith(world.base):
                wanted.add((url, to, anchor))
                waiting.append(to)
    assert len(pages) > 2 * len(GUIDES)
    known = {url: anchors(page) for url, page in pages.items()}
    assert [each for each in wanted if each[2] and each[2] not in known[each[1]]] == []
    assert [url for url, found in known.items() if len(found) != len(set(found))] == []


async def test_a_stranger_reads_everything_and_gets_no_cookie(stranger: httpx.AsyncClient) -> None:
    for path in ("/docs", "/docs/api", "/docs/webhooks", "/docs/webhooks.md", "/llms.txt"):
        answer = await stranger.get(path)
        assert (answer.status_code, answer.headers.get("set-cookie")) == (200, None), path
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'")
        assert re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|javascript:", answer.text) == []
    assert ("Sign in</a>" in answer.text, "csrf" in answer.text) == (False, False)
    page = (await stranger.get("/docs")).text
    assert ("Sign in</a>" in page, "csrf" in page, "Sign out" in page) == (True, False, False)


async def test_who_is_signed_in_has_the_navigation_beside_it(world: World) -> None:
    async with signed_in(world) as client:
        answer = await client.get("/docs/webhooks")
        assert ('href="/tasks"' in answer.text, "Sign out" in answer.text) == (True, True)
        assert 'href="/docs" data-letter="h" aria-current="page"' in answer.text
        again = await client.get("/docs/webhooks", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.cookies[COOKIE]


@pytest.mark.parametrize("path", ["/docs/api", "/docs/runs", "/docs/runs.md", "/llms.txt"])
async def test_a_page_is_sent_again_only_if_it_has_changed(stranger: httpx.AsyncClient, path: str) -> None:
    first = await stranger.get(path)
    again = await stranger.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", "no-cache")
    changed = await stranger.get(path, headers={"if-none-match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)


async def test_the_reference_has_every_operation_format_field_and_error(stranger: httpx.AsyncClient) -> None:
    page = (await stranger.get("/docs/api")).text
    shown = entries(page)
    document = described().document
    operations = {
        operation["operationId"]: f"<code>{path}</code>"
        for path, item in document["paths"].items()
        for operation in item.values()
    }
    formats = {item["post"]["operationId"] for item in document["webhooks"].values()}
    assert operations.keys() | formats | {f"error-{code}" for code in CODES} | {"stream"} <= shown.keys()
    assert all(shown.values())
    assert [path for path in operations.values() if path not in page] == []
    for name, schema in document["components"]["schemas"].items():
        if f"schema-{name}" not in shown:
            assert schema["properties"].keys() == {"id", "object", "status", "created_at", "data"}, name
            continue
        part = page.partition(f'id="schema-{name}"')[2].partition("</article>")[0]
        assert [each for each in schema.get("properties", ()) if f"<code>{each}</code>" not in part] == [], name


async def test_an_operation_is_described_as_a_program_would_read_it(world: World, stranger: httpx.AsyncClient) -> None:
    page = (await stranger.get("/docs/api")).text
    part = unescape(page.partition('id="create_tasks"')[2].partition("</article>")[0])
    for text in (
        '<span class="method m-post">POST</span> <code>/api/v1/tasks</code> <span class="tag">write</span>',
        "<code>Idempotency-Key</code>",
        '<tr class="depth-2">\n  <th scope="row"><code>max_attempts</code>',
        f'curl "{world.base}/api/v1/tasks"',
        '-H "X-API-Key: $RINGBACK_API_KEY"',
        '<a href="/docs/api#error-organization_limit_reached">',
        '<a href="/docs/api#schema-CreatedTasks">',
    ):
        assert text in part, text
    assert "ringback.invalid" not in page


@pytest.mark.parametrize(
    ("host", "address"),
    [("api.example.com", "http://api.example.com"), ("a<b>", "https://ringback.example.com")],
)
async def test_examples_have_the_reader_s_address(stranger: httpx.AsyncClient, host: str, address: str) -> None:
    page = unescape((await stranger.get("/docs/api", headers={"host": host})).text)
    assert (f'curl "{address}/api/v1/runs"' in page, "a<b>" in page) == (True, False)


async def test_a_search_leaves_the_parts_that_have_all_its_words(stranger: httpx.AsyncClient) -> None:
    page = (await stranger.get("/docs/api", params={"q": "Rotate-Secret overlap"})).text
    shown = {anchor for anchor, is_shown in entries(page).items() if is_shown}
    assert shown == {"rotate_webhook_secret"}
    assert 'value="Rotate-Secret overlap"' in page
    page = (await stranger.get("/docs/api", params={"q": "outcome_unknown"})).text
    assert entries(page)["error-outcome_unknown"] is True
    page = (await stranger.get("/docs/api", params={"q": HOSTILE})).text
    assert (any(entries(page).values()), "<script>alert" in page, "\u202e" in page) == (False, False, False)
    assert 'id="none" role="status">Nothing has all of these words' in page


async def test_a_guide_is_there_as_its_author_wrote_it(stranger: httpx.AsyncClient) -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == GUIDES.keys()
    for name in GUIDES:
        answer = await stranger.get(f"/docs/{name}.md")
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.text == (FOLDER / f"{name}.md").read_text()
    for path in ("/docs/nothing", "/docs/nothing.md", "/docs/..%2Fkeys", "/docs/first-steps.md.md"):
        assert (await stranger.get(path)).status_code == 404, path


async def test_the_index_for_programs_has_the_usual_form(world: World, stranger: httpx.AsyncClient) -> None:
    lines = (await stranger.get("/llms.txt")).text.splitlines()
    assert lines[0] == "# Ringback"
    assert lines[2].startswith("> Knows when")
    items = [line for line in lines if line.startswith("- ")]
    assert all(re.fullmatch(rf"- \[[^\]]+\]\({re.escape(world.base)}/[\w./-]+\): .+", each) for each in items)
    assert {f"{world.base}/docs/{name}.md" for name in GUIDES} < set(re.findall(r"\]\(([^)]+)\)", "\n".join(lines)))


async def test_below_a_prefix_every_link_begins_with_it(tmp_path: Path) -> None:
    async with in_process(tmp_path, root_path="/ring") as world, browser(world) as client:
        for path in ("/ring/docs", "/ring/docs/api", "/ring/docs/troubleshooting"):
            page = (await client.get(path)).text
            inner = {each for each in links(page) if not each.startswith(("#", "https://"))}
            assert inner
            assert [each for each in inner if not each.startswith("/ring/")] == []
        assert f"{world.base}/ring/docs/runs.md" in (await client.get("/ring/llms.txt")).text


async def test_without_the_dashboard_there_are_none(tmp_path: Path) -> None:
    async with in_process(tmp_path, dashboard="false") as world, browser(world) as client:
        for path in ("/docs", "/docs/api", "/docs/runs", "/llms.txt"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
