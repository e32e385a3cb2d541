"""What an idle reader of the live stream costs: memory of a real server with so many of them over loopback."""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.servers import free_port

API_KEY = "a-key-for-the-bench-of-streams"
CONNECTIONS = 2000
_WARM_UP = 100
"""Connections before the first look: what the first ones cost is the program itself."""
_AT_ONCE = 100
_GREETED = b"from here on"
_REQUEST = (
    b"GET /api/v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n"
    b"x-api-key: " + API_KEY.encode() + b"\r\n\r\n"
)

Reader = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Idle:
    """Memory of the server's process, in KiB: before and with the connections."""

    connections: int
    before: int
    with_them: int

    @property
    def each(self) -> float:
        """KiB a connection."""
        return (self.with_them - self.before) / self.connections


def measure_idle_streams(connections: int = CONNECTIONS) -> Idle:
    """Run `ringback serve`, let so many readers follow the stream, and look at its memory. Linux only."""
    _raise_file_limit(connections + 500)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
        environment |= {"RINGBACK_API_KEY": API_KEY, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        command = [sys.executable, "-m", "receiver.cli", "serve", "--port", str(port)]
        with (Path(folder) / "serve.log").open("wb") as log:
            server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            return asyncio.run(_measure(server, port, connections))
        finally:
            server.terminate()
            server.wait(20)


async def _measure(server: "subprocess.Popen[bytes]", port: int, connections: int) -> Idle:
    await _listening(server, port)
    await _leave(await _follow(port, _WARM_UP))
    before = _resident(server.pid)
    readers = await _follow(port, connections)
    idle = Idle(connections, before, _resident(server.pid))
    await _leave(readers)
    return idle


async def _follow(port: int, connections: int) -> list[Reader]:
    """Open streams, and return when each was greeted."""
    readers: list[Reader] = []
    while len(readers) < connections:
        some = min(_AT_ONCE, connections - len(readers))
        readers += await asyncio.gather(*(_open(port) for _ in range(some)))
    return readers


async def _open(port: int) -> Reader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_REQUEST)
    await reader.readuntil(_GREETED)
    return reader, writer


async def _leave(readers: list[Reader]) -> None:
    for _, writer in readers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in readers))


async def _listening(server: "subprocess.Popen[bytes]", port: int) -> None:
    async with asyncio.timeout(20):
        while server.poll() is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise RuntimeError("the server did not start")


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def _raise_file_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


if __name__ == "__main__":
    found = measure_idle_streams(int(sys.argv[1]) if len(sys.argv) > 1 else CONNECTIONS)
    grown = f"{found.before} KiB before, {found.with_them} KiB with them"
    print(f"{found.connections} idle streams: {found.each:.1f} KiB each ({grown})")
