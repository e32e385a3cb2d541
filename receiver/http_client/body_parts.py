"""The body of a request that is sent as it comes, in the form that its head announces."""

from collections.abc import AsyncIterable, AsyncIterator


async def in_chunks(parts: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts as chunks, and the end of them."""
    async for part in parts:
        if part:  # an empty chunk would be the end
            yield b"%x\r\n%b\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


async def of_length(parts: AsyncIterable[bytes], length: int) -> AsyncIterator[bytes]:
    """Yield the parts as they are. Raises ValueError if they are not `length` bytes together."""
    left = length
    async for part in parts:
        left -= len(part)
        if left < 0:
            break
        yield part
    if left:
        raise ValueError("the body has not the length that was announced")
