"""Responses in HTTP/1.0 and older."""

import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class WithoutChunks:
    """Responds to one request in HTTP/1.0 or older: a body whose length is not known ends with the connection.

    Only HTTP/1.1 has chunks (RFC 9112, section 6.1).
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application respond."""
        is_unknown = False

        async def send_without_chunks(message: Message) -> None:
            nonlocal is_unknown
            if message["type"] == "http.response.start":
                is_unknown = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if is_unknown:
                    self._cycle.chunked_encoding = False
                    self._cycle.expected_content_length = sys.maxsize
            elif is_unknown and not message.get("more_body", False):
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_without_chunks)
