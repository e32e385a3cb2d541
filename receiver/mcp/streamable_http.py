"""`/mcp`: one request of the protocol, without a session: each has all that it needs, so any process may answer it."""

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Receive, Scope, Send

from receiver.mcp.server import build_server
from receiver.mcp.service_api import ServiceApi

_CHECKED_BEFORE = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""`endpoint.py` checks the origin."""


async def serve_request(api: ServiceApi, most_bytes: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request. What it began has ended when this returns: nothing is kept for a next one."""
    manager = StreamableHTTPSessionManager(
        build_server(api), stateless=True, security_settings=_CHECKED_BEFORE, max_request_body_size=most_bytes
    )
    async with manager.run():
        await manager.handle_request(scope, receive, send)
