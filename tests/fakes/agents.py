"""Clients of the package `mcp`, as agents' programs use them: over HTTP, and of a `ringback mcp` that they start.

Import it where it is used: the package takes a second.
"""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.fakes.command import CLEAN
from tests.fakes.world import API_KEY

_ROOT = str(Path(__file__).resolve().parents[2])


class Agent:
    """A client, and the progress notifications that it got."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.progress: list[str] = []

    async def tools(self) -> set[str]:
        return {tool.name for tool in (await self.client.list_tools()).tools}

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool, which must succeed; the client checks what it returns against the tool's schema."""
        result = await self.client.call_tool(name, arguments, progress_callback=self._note)
        assert not result.is_error, result.content
        return dict(result.structured_content)

    async def refused(self, name: str, **arguments: Any) -> str:
        """Call a tool, which must fail; return the words."""
        result = await self.client.call_tool(name, arguments)
        assert result.is_error, result.structured_content
        return str(getattr(result.content[0], "text", ""))

    async def read(self, uri: str) -> str:
        (content,) = (await self.client.read_resource(uri)).contents
        return str(getattr(content, "text", ""))

    async def _note(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append(str(message))


@asynccontextmanager
async def over_http(url: str, headers: Mapping[str, str] | None = None, *, mode: str = "auto") -> AsyncIterator[Agent]:
    """Connect to `/mcp`; `mode` is the era of the protocol: "legacy" is what most programs speak."""
    given = headers or {"authorization": f"Bearer {API_KEY}"}
    async with (
        httpx2.AsyncClient(headers=dict(given), timeout=40, verify=False) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield Agent(client)


@asynccontextmanager
async def over_stdio(url: str, folder: Path, *, mode: str = "auto") -> AsyncIterator[Agent]:
    """Start `ringback mcp` and connect to it; at the end its stdin is closed."""
    environment = {**CLEAN, "RINGBACK_URL": url, "RINGBACK_API_KEY": API_KEY, "PYTHONPATH": _ROOT}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "receiver.cli", "mcp"], env=environment, cwd=folder
    )
    with (folder / "mcp.err").open("w") as errors:
        async with Client(stdio_client(command, errlog=errors), mode=mode) as client:
            yield Agent(client)
