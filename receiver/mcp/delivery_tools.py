"""The tools that look at what subscribers were sent, and the one that explains."""

from typing import Annotated, Any, Literal

from pydantic import Field

from receiver.mcp.calls import ApiCalls, one
from receiver.mcp.pages import PageArguments, listing, page_at
from receiver.mcp.tool import CUT, TEXT, ReportProgress, Tool, ToolArguments, ToolResult, cut_note, schema, words

ResourceId = Annotated[str, Field(min_length=1, max_length=300)]
_STATUS = words("pending", "delivered", "dead", "cancelled")


class ListDeliveriesArguments(PageArguments):
    """Of `list_deliveries`: deliveries that match all that is given."""

    status: Literal["pending", "delivered", "dead", "cancelled"] | None = None
    """dead: every attempt failed."""
    webhook_id: str | None = None
    event_id: str | None = None
    task_id: str | None = None
    created_after: str | None = None
    """ISO 8601 in UTC, such as 2026-01-31T09:30:00Z."""
    created_before: str | None = None
    """ISO 8601 in UTC."""


class OneDeliveryArguments(ToolArguments):
    """Of `get_delivery`."""

    delivery_id: ResourceId


class ListWebhooksArguments(PageArguments):
    """Of `list_webhooks`."""


class ExplainArguments(ToolArguments):
    """Of `explain`."""

    kind: Literal["task", "run", "delivery"]
    id: ResourceId


_KINDS = {"task": "tasks", "run": "runs", "delivery": "deliveries"}
_DELIVERY = schema({"id": TEXT, "status": _STATUS}, {"attempts": {}, "request": {}, "shortened": CUT})


async def list_deliveries(calls: ApiCalls, wanted: ListDeliveriesArguments, _progress: ReportProgress) -> ToolResult:
    """Return a page of deliveries."""
    return await page_at(calls, "/api/v1/deliveries", wanted)


async def get_delivery(calls: ApiCalls, wanted: OneDeliveryArguments, _progress: ReportProgress) -> ToolResult:
    """Return a delivery with its request and its attempts."""
    return await _whole(calls, one("deliveries", wanted.delivery_id))


async def list_webhooks(calls: ApiCalls, wanted: ListWebhooksArguments, _progress: ReportProgress) -> ToolResult:
    """Return a page of the registered URLs."""
    return await page_at(calls, "/api/v1/webhooks", wanted)


async def explain(calls: ApiCalls, wanted: ExplainArguments, _progress: ReportProgress) -> ToolResult:
    """Return why a task, run or delivery is in its state, and what happens next."""
    return await _whole(calls, one(_KINDS[wanted.kind], wanted.id, "/explain"))


async def _whole(calls: ApiCalls, path: str) -> ToolResult:
    found = await calls.get(path)
    data: dict[str, Any] = dict(found.data)
    return ToolResult({**data, "shortened": cut_note(found.size, f"GET {path}")} if found.is_cut else data)


DELIVERY_TOOLS = (
    Tool(
        name="explain",
        title="Explain a state",
        description=(
            "Says why a task, a run or a delivery is in its state, what happens next and when, and what blocks it. "
            "Use it when something takes long or has failed. Costs nothing."
        ),
        arguments=ExplainArguments,
        output=schema({}),
        run=explain,
    ),
    Tool(
        name="list_deliveries",
        title="List deliveries",
        description=(
            "Finds what was sent to subscribers' webhooks, newest first, by status, webhook, event, task and time. "
            "Costs nothing."
        ),
        arguments=ListDeliveriesArguments,
        output=listing(schema({"id": TEXT, "status": _STATUS})),
        run=list_deliveries,
    ),
    Tool(
        name="get_delivery",
        title="Get a delivery",
        description="Returns one delivery with its request and the answer to each attempt. Costs nothing.",
        arguments=OneDeliveryArguments,
        output=_DELIVERY,
        run=get_delivery,
    ),
    Tool(
        name="list_webhooks",
        title="List webhooks",
        description=(
            "Lists the URLs that are told of events, with their filters, and why one is disabled. Costs nothing."
        ),
        arguments=ListWebhooksArguments,
        output=listing(schema({"id": TEXT, "endpoint_url": TEXT})),
        run=list_webhooks,
    ),
)
