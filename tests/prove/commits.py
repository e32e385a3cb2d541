"""A way to PostgreSQL that meets COMMITs: it cuts the connection before or after the server has one, or holds it.

It speaks just enough of PostgreSQL's protocol to find the messages (a type, a length, a body) and the COMMITs in them.
Of a statement that is a transaction by itself (`receiver.storage.postgresql.one_statement`), the message that ends it,
Sync, is the COMMIT: the server commits when it has that.
"""

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from receiver.storage.postgresql.one_statement import MARK
from tests.prove.history import History
from tests.prove.stores import Store

_SOCKET = ".s.PGSQL.5432"
_QUERY, _PARSE, _BIND, _SYNC = b"Q", b"P", b"B", b"S"
_COMMIT = b"COMMIT"
_READY = b"Z"
_FAULTS = ("cut before the server had it", "cut after the server had it", "held", "held and cut")
_HELD_SECONDS = (1.0, 7.0)
"""Also longer than a writer waits for the outcome of a COMMIT."""


class CommitProxy:
    """Forwards connections. `share` of the COMMITs meet a fault: 0 for none."""

    def __init__(self, server: Path, history: History, rng: random.Random) -> None:
        self.share = 0.0
        self.met = 0
        self._server = server
        self._history = history
        self._rng = rng
        self._conversations: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Listen on a Unix socket."""
        server = await asyncio.start_unix_server(self._meet, path)
        try:
            yield
        finally:
            server.close()
            for conversation in self._conversations:
                conversation.cancel()
            await asyncio.gather(*self._conversations, return_exceptions=True)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(self._converse(reader, writer))
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)

    async def _converse(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            server, to_server = await asyncio.open_unix_connection(self._server)
            answers = _Answers(server, to_client)
            backward = asyncio.create_task(answers.forward())
            commits = _Commits()
            try:
                to_server.write(await _startup(client))
                while True:
                    kind, message = await _message(client)
                    if commits.is_one(kind, message) and self._is_met():
                        await self._fault(message, to_server, answers)
                    else:
                        to_server.write(message)
                        await to_server.drain()
            finally:
                backward.cancel()
                await asyncio.gather(backward, return_exceptions=True)
                to_client.close()
                to_server.close()
        to_client.close()

    def _is_met(self) -> bool:
        return self.share > 0 and self._rng.random() < self.share

    async def _fault(self, message: bytes, to_server: asyncio.StreamWriter, answers: "_Answers") -> None:
        """Do one of the faults to a COMMIT. Raises `ConnectionAbortedError` where both sides are to be cut."""
        self.met += 1
        fault = self._rng.choice(_FAULTS)
        seconds = self._rng.uniform(*_HELD_SECONDS)
        has_it = fault != "cut before the server had it"
        if fault.startswith("held"):
            await asyncio.sleep(seconds)
        if has_it:
            answers.withheld = fault != "held"
            answers.ready.clear()
            to_server.write(message)
            await answers.ready.wait()
        details = {"seconds": round(seconds, 2)} if fault.startswith("held") else {}
        self._history.write("fault", f"COMMIT {fault}", hit=True, server_had_it=has_it, **details)
        if fault != "held":
            raise ConnectionAbortedError


class _Commits:
    """Finds the messages of one connection that commit."""

    def __init__(self) -> None:
        self._whole: set[bytes] = set()
        """The names of prepared statements each of which is a transaction."""
        self._is_under_way = False

    def is_one(self, kind: bytes, message: bytes) -> bool:
        """Return whether this message commits; to be asked of each."""
        if kind == _QUERY:
            return message[5:-1].strip().upper() == _COMMIT
        if kind == _PARSE:
            name, query = message[5:].split(b"\0", 2)[:2]
            (self._whole.add if query.startswith(MARK.encode()) else self._whole.discard)(name)
        elif kind == _BIND:
            self._is_under_way = message[5:].split(b"\0", 2)[1] in self._whole
        elif kind == _SYNC and self._is_under_way:
            self._is_under_way = False
            return True
        return False


class _Answers:
    """What the server sends on one connection. `withheld` keeps it from the client.

    `ready` is set when the server is ready for the next query, and when the connection is closed.
    """

    def __init__(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.withheld = False
        self._server = server
        self._to_client = to_client
        self.ready = asyncio.Event()

    async def forward(self) -> None:
        """Forward until either side closes."""
        try:
            while True:
                kind, message = await _message(self._server)
                if not self.withheld:
                    self._to_client.write(message)
                    await self._to_client.drain()
                if kind == _READY:
                    self.ready.set()
        except (OSError, asyncio.IncompleteReadError):
            self._to_client.close()
        finally:
            self.ready.set()


@asynccontextmanager
async def proxied(store: Store, folder: Path, history: History, seed: str) -> AsyncIterator[tuple[str, CommitProxy]]:
    """Run a proxy to a PostgreSQL database; yield the URL through it, and the proxy."""
    assert store.server is not None
    proxy = CommitProxy(store.server.folder / _SOCKET, history, random.Random(f"{seed} commits"))
    async with proxy.listening(folder / _SOCKET):
        yield f"postgresql://postgres@/{store.name}?host={folder}", proxy


async def _startup(client: asyncio.StreamReader) -> bytes:
    """Read the first message, which has no type."""
    length = await client.readexactly(4)
    return length + await client.readexactly(struct.unpack("!I", length)[0] - 4)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a message; return its type and all of its bytes."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
