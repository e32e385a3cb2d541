"""`ringback mcp`: the protocol on stdin and stdout, until stdin ends."""

from mcp.server.stdio import stdio_server

from receiver.mcp.server import build_server
from receiver.mcp.service_api import ServiceApi


async def serve_stdio(api: ServiceApi) -> None:
    """Serve one client. While it does, what else is printed goes to stderr."""
    server = build_server(api)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
