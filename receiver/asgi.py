"""What both the inbound endpoint and the API need from ASGI: a body of bounded size, and closing a connection."""

from starlette.types import Receive, Scope

from receiver.errors import RingbackError, TooLarge

ABORT = "ringback.abort"
"""The ASGI extension by which the server offers to close a connection at once: `{"abort": function}`."""


class ClientGone(RingbackError):
    """Raised when the client closed the connection before its whole body was received. No response can be sent."""

    status = 400
    code = "client_gone"


async def read_body(scope: Scope, receive: Receive, limit: int, *, setting: str = "RINGBACK_MAX_BODY_BYTES") -> bytes:
    """Return the request's body. `setting` is where `limit` comes from, for the error.

    Raises `TooLarge` as soon as it is known to be larger than `limit` bytes: before the first byte is read where
    `Content-Length` says so. Raises `ClientGone`.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise TooLarge(f"the body has {int(value)} bytes; {setting} allows {limit}")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that {setting} allows")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
