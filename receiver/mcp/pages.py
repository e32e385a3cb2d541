"""Lists: pages with a cursor, in a size that a model can read."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from receiver.large_bodies import read_by_size
from receiver.mcp.calls import ApiCalls
from receiver.mcp.shortening import MOST_TOOL_BYTES, shortened, size_of
from receiver.mcp.tool import OPTIONAL_TEXT, ToolArguments, ToolResult, ToolSchema, schema

_WHOLE_PAGE_BYTES = 64 * 1024 * 1024
"""More than the API returns: only the items are cut."""
_LEAST_ITEM_BYTES = 600


class PageArguments(ToolArguments):
    """What the arguments of all lists have."""

    limit: Annotated[int, Field(ge=1, le=50)] = 20
    cursor: str | None = None
    """The next_cursor of the page before, for the next one."""


def listing(item: ToolSchema) -> dict[str, Any]:
    """Return the schema of a page."""
    return schema(
        {"items": {"type": "array", "items": item}, "has_more": {"type": "boolean"}}, {"next_cursor": OPTIONAL_TEXT}
    )


async def page_at(calls: ApiCalls, path: str, wanted: PageArguments, names: Sequence[str] = ()) -> ToolResult:
    """Return a page: of each item the named members (without `names` all), and of these the beginning."""
    found = await calls.get(path, _query_of(wanted), most=_WHOLE_PAGE_BYTES)
    page = found.data
    return await read_by_size(found.size, lambda: ToolResult(_shown(page, names)))


def _shown(page: Any, names: Sequence[str]) -> dict[str, Any]:
    most = max(_LEAST_ITEM_BYTES, MOST_TOOL_BYTES // max(1, len(page["data"])))
    items = []
    for item in page["data"]:
        kept = {name: item[name] for name in names or item if name in item}
        items.append(shortened(kept, size_of(kept), most)[0])
    return {"items": items, "has_more": page["has_more"], "next_cursor": page["next_cursor"]}


def _query_of(wanted: ToolArguments) -> list[tuple[str, str]]:
    """Return arguments as the query of the path."""
    given = wanted.model_dump(exclude_none=True)
    members = given.pop("metadata", None) or {}
    plain = [(name, str(value)) for name, value in given.items()]
    return plain + [(f"metadata[{name}]", value) for name, value in members.items()]
