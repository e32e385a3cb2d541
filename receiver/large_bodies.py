"""Reads large bodies in a few threads, so that the event loop serves others meanwhile.

Threads share one interpreter: each step of a reader still has to be short (`receiver.domain.json_bounds`), but other
work runs between two steps.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LARGE_BYTES = 64 * 1024
"""A smaller body is read on the event loop: that takes less time than the way to a thread and back."""
_THREADS = 2

Result = TypeVar("Result")
_pool = ThreadPoolExecutor(_THREADS, "ringback-body")


async def read_by_size(size: int, read: Callable[[], Result]) -> Result:
    """Return what `read` makes of a body of this size, or raise what it raises: in a thread if the body is large."""
    return read() if size <= LARGE_BYTES else await read_apart(read)


async def read_apart(read: Callable[[], Result]) -> Result:
    """Return what `read` returns, or raise what it raises, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_pool, read)
