"""What a tool is, before it is put into the words of the protocol (`server.py`)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct
from pydantic import BaseModel, ConfigDict

from receiver.mcp.calls import ApiCalls

ToolSchema = Mapping[str, Any]


class ToolArguments(BaseModel):
    """The arguments of a tool; one that it does not have is refused, for it would be a mistake."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


ReportProgress = Callable[[float, float | None, str], Awaitable[None]]
"""Sends a progress notification if the client asked for them: how far a call is, of how much, and in words."""


class ToolResult(Struct, frozen=True):
    """What a tool returns; `links` are the resources where the whole is, of which `data` is a part."""

    data: dict[str, Any]
    links: tuple[str, ...] = ()


class Tool(Struct, frozen=True, kw_only=True):
    """One tool."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    output: ToolSchema
    run: Callable[[ApiCalls, Any, ReportProgress], Awaitable[ToolResult]]
    changes: bool = False
    """Whether it needs a key that may write."""
    is_destructive: bool = False
    is_idempotent: bool = False
    reaches_out: bool = False
    """Whether it may have the provider do something."""


def schema(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of an object with these members, which may have others: the API adds some in time."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def words(*values: str) -> dict[str, Any]:
    """Return the schema of a text, which is one of these words today."""
    return {"type": "string", "description": f"One of: {', '.join(values)}."}


TEXT: ToolSchema = {"type": "string"}
OPTIONAL_TEXT: ToolSchema = {"type": ["string", "null"]}
TASK_STATUS = words("queued", "staged", "pending", "processing", "completed", "failed", "cancelled")
RUN_STATUS = words("pending", "in_progress", "completed", "failed", "cancelled")
CUT: ToolSchema = schema({"bytes": {"type": "integer"}, "note": TEXT}, {"resource": TEXT})
"""Says that the answer is not whole."""


def cut_note(size: int, where: str, resource: str | None = None) -> dict[str, Any]:
    """Return what stands under `shortened` in a result that was cut."""
    note = {"bytes": size, "note": f"This is a part: long texts and lists are cut. The whole is at {where}."}
    return note if resource is None else {**note, "resource": resource}
