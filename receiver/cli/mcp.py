"""`ringback mcp`: tools for agents on stdin and stdout."""

import asyncio
import signal
import sys

from receiver.cli.console import echo
from receiver.cli.failure import Failure, Status


def mcp() -> None:
    """Serve tools for agents on stdin and stdout (Model Context Protocol), until stdin ends.

    An agent's program starts it. It is a client of the service at RINGBACK_URL, with the key RINGBACK_API_KEY: what
    that key may not do, no tool does.
    """
    import httpx

    from receiver.cli.interrupts import run_async
    from receiver.cli.service import connection
    from receiver.mcp.remote import RemoteApi
    from receiver.mcp.service_api import INSTALL

    arguments = connection()
    if not arguments["headers"]:
        raise Failure(Status.USAGE, "set RINGBACK_API_KEY")
    try:
        from receiver.mcp.stdio import serve_stdio
    except ModuleNotFoundError as error:
        raise Failure(Status.USAGE, f"it is not installed (no module {error.name}): {INSTALL}") from None
    if sys.stdin.isatty():
        echo("ringback mcp speaks with an agent's program on stdin; Ctrl-D ends it", err=True)

    async def serve() -> None:
        # The thread that waits for stdin cannot be cancelled, so Ctrl-C ends the process as SIGTERM does.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        async with httpx.AsyncClient(**arguments) as client:
            await serve_stdio(RemoteApi(client))

    run_async(serve())
