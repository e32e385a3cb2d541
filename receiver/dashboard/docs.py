"""The guides and the reference of the API, for everyone: they say what the service can do and nothing of what it does.

They are made once in a process, in a thread. A browser that has a page asks only whether it has changed.
"""

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from receiver.api.openapi import given_tags, read_description, reader_address
from receiver.dashboard.answers import secured
from receiver.dashboard.guides import GROUPS, GUIDES, rendered_guide
from receiver.dashboard.visit import Visit

if TYPE_CHECKING:
    from receiver.dashboard.reference_page import ReferencePage

_MARKDOWN = ".md"
_LONGEST_QUERY = 200
_WITHOUT_HOST = "https://ringback.example.com"
_CACHED = {"cache-control": "no-cache", "vary": "Cookie, Host, X-Forwarded-Host, X-Forwarded-Proto"}


async def show_docs(visit: Visit) -> Response:
    """Show all guides, and the parts of the reference."""
    return _kept(
        visit, _page(visit, "docs.html", tags=(await _reference(visit)).reference.sections, address=_address(visit))
    )


async def show_guide(visit: Visit) -> Response:
    """Show a guide; with `.md` as its author wrote it."""
    given = visit.path("guide")
    name = given.removesuffix(_MARKDOWN)
    if name not in GUIDES:
        raise HTTPException(404)
    if given != name:
        text = await asyncio.to_thread(GUIDES[name].text)
        return _kept(visit, secured(Response(text, media_type="text/markdown")))
    rendered = await asyncio.to_thread(rendered_guide, name, visit.url(""))
    guide = GUIDES[name]
    return _kept(visit, _page(visit, "docs_guide.html", guide=guide, content=rendered.markup, parts=rendered.headings))


async def show_reference(visit: Visit) -> Response:
    """Show the reference; `q` leaves the parts that have all of its words."""
    query = dict(visit.query).get("q", "").strip()[:_LONGEST_QUERY]
    nav, content = await (await _reference(visit)).shown(_address(visit), query)
    return _kept(visit, _page(visit, "docs_reference.html", nav=nav, content=content, query=query))


async def show_index(visit: Visit) -> Response:
    """Return what there is to read, for programs in which a language model reads."""
    address = _address(visit)
    lines = [
        "# Ringback",
        "",
        "> Knows when a generation task is done, even if the webhook never comes, and tells everyone who asked: a "
        "self-hosted service between an application and an asynchronous task API (PiAPI).",
        "",
        f"The API is at {address}. Requests need an API key: `X-API-Key: <key>`. Tools for agents: {address}/mcp.",
    ]
    for group, guides in GROUPS.items():
        lines += ["", f"## {group}", ""]
        lines += [f"- [{each.label}]({address}/docs/{each.name}{_MARKDOWN}): {each.summary}" for each in guides]
    lines += [
        "",
        "## API",
        "",
        f"- [OpenAPI 3.1]({address}/openapi.json): every path, parameter, status, field and error code, and what is "
        "delivered in each format.",
        f"- [Reference]({address}/docs/api): the same as a page.",
        "",
    ]
    return _kept(visit, secured(Response("\n".join(lines), media_type="text/plain")))


def _page(visit: Visit, template: str, **values: Any) -> Response:
    return visit.page(template, groups=GROUPS, **values)


def _kept(visit: Visit, response: Response) -> Response:
    """Return an answer with its tag; without its content where the browser has that already."""
    etag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    response.headers.update({"etag": etag, **_CACHED})
    if etag not in given_tags(visit.request):
        return response
    headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    return secured(Response(status_code=304, headers=headers))


def _address(visit: Visit) -> str:
    """Return the address of the service for examples."""
    address = reader_address(visit.request)
    return address if "://" in address else _WITHOUT_HOST + visit.url("")


async def _reference(visit: Visit) -> "ReferencePage":
    state = visit.request.app.state
    if not hasattr(state, "reference"):
        state.reference = asyncio.create_task(_built(visit))
    page: ReferencePage = await asyncio.shield(state.reference)
    return page


async def _built(visit: Visit) -> "ReferencePage":
    # Imported here, so that no start waits for what reads Markdown.
    from receiver.dashboard.reference import build_reference
    from receiver.dashboard.reference_page import ReferencePage

    description = await read_description(visit.request)
    url = visit.url("/docs/api")
    sections = await asyncio.to_thread(lambda: build_reference(orjson.loads(description), url))
    return ReferencePage(sections, url)
