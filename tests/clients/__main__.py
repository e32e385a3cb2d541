"""Drive public clients of PiAPI, unchanged, against Ringback with the sandbox as its provider, all on loopback.

Each client is driven if its place is given. What each asked and got is printed with `--verbose`; `--record` writes what
it asked to `tests/payloads/clients`, which the suite sends again. The exit status is the number of operations in which
a client did not get what it expects.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from receiver.telemetry.log import configure_logging
from tests.clients import mcp_server, n8n_nodes, recorded, skills
from tests.clients.driving import Driving, Outcome
from tests.clients.recorder import Recorder
from tests.fakes.databases import end_session
from tests.fakes.servers import served
from tests.fakes.world import QUICK, in_process

_MOST_FAULTS = 100

Drive = Callable[[Driving, Path], Awaitable[list[Outcome]]]


def main() -> None:
    """Drive the clients named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--skills", type=Path, metavar="PYTHON", help="a Python with the package piapi-skills")
    parser.add_argument("--mcp-server", type=Path, metavar="FOLDER", help="piapi-mcp-server, built (dist/index.js)")
    parser.add_argument("--n8n-nodes", type=Path, metavar="FOLDER", help="n8n-nodes-piapi, built (dist/nodes)")
    parser.add_argument("--record", action="store_true", help="write the requests for the suite")
    parser.add_argument("--verbose", action="store_true", help="print every request and answer")
    options = parser.parse_args()
    configure_logging()
    try:
        outcomes = asyncio.run(_drive(options))
    finally:
        end_session()
    faults = [outcome for outcome in outcomes if outcome.fault is not None]
    for outcome in outcomes:
        print(f"{'FAIL' if outcome.fault else 'ok  '} {outcome.client}: {outcome.operation}  {outcome.fault or ''}")
    print(f"{len(outcomes) - len(faults)} passed, {len(faults)} failed")
    sys.exit(min(len(faults), _MOST_FAULTS))


async def _drive(options: argparse.Namespace) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        async with in_process(Path(folder), QUICK, poll_first_seconds="1", poll_max_seconds="2") as world:
            for client, drive, place in _clients(options):
                recorder = Recorder(world.base)
                async with served(recorder.app()) as base:
                    outcomes += await drive(Driving(base, recorder, world), place)
                await recorder.close()
                if options.verbose:
                    print("\n".join(f"{each.operation}: {each.shown}" for each in recorder.exchanges))
                if options.record:
                    recorded.write(client, recorder.exchanges, {"base": base, "subscriber": world.subscriber.base})
    return outcomes


def _clients(options: argparse.Namespace) -> Iterator[tuple[str, Drive, Path]]:
    """Yield (name, driver, place) of every client whose place is given."""
    if options.skills is not None:
        yield skills.CLIENT, skills.drive, options.skills
    if options.mcp_server is not None:
        yield mcp_server.CLIENT, mcp_server.drive, options.mcp_server.resolve()
    if options.n8n_nodes is not None:
        yield n8n_nodes.CLIENT, n8n_nodes.drive, options.n8n_nodes.resolve()


main()
