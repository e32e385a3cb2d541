"""Reading a request's body up to a bound, and no further."""

from starlette.types import Receive, Scope

from receiver.errors import RingbackError, TooLarge


class ClientGone(RingbackError):
    """The client hung up before its body was here."""

    status = 400
    code = "client_gone"


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """Return the body. Raises `TooLarge` as soon as it is known to be over `most` bytes, `ClientGone`."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > most:
            raise TooLarge(f"the body has {int(value)} bytes; at most {most} are taken")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client hung up")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the body has more than the {most} bytes that are taken")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
