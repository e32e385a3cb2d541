"""What both the inbound endpoint and the API need of ASGI: a bounded body, and a way to cut a connection."""

from starlette.types import Receive, Scope

from receiver.errors import RingbackError, TooLarge

ABORT = "ringback.abort"
"""The ASGI extension by which the server offers to cut a connection: `{"abort": function}`."""


class ClientGone(RingbackError):
    """The client closed the connection before its body had arrived."""

    status = 400
    code = "client_gone"


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """Return the body. Raises `TooLarge` as soon as it is known to exceed `most` bytes, `ClientGone`."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > most:
            raise TooLarge(f"the body has {int(value)} bytes; at most {most} are accepted")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the body has more than the {most} bytes that are accepted")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
