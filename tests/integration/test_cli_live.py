"""Live views in a terminal: they show what is new without a key being pressed, and end by `q` or Ctrl-C."""

import asyncio
import os
import pty
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.fakes.world import API_KEY, World


@dataclass
class Terminal:
    """A command in a terminal of its own. `shown` is all that it wrote there."""

    pid: int
    descriptor: int
    shown: bytearray = field(default_factory=bytearray)
    has_ended: bool = False

    def press(self, key: str) -> None:
        os.write(self.descriptor, key.encode())

    async def until(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text.encode() not in self.shown:
                self.shown += await asyncio.to_thread(os.read, self.descriptor, 65536)

    async def ended(self) -> int:
        """Return the exit status; what is written until then is read, or the command could not end."""
        try:
            while read := await asyncio.to_thread(os.read, self.descriptor, 65536):
                self.shown += read
        except OSError:  # so Linux tells that the other side is closed
            pass
        _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
        self.has_ended = True
        return os.waitstatus_to_exitcode(status)


@contextmanager
def terminal(world: World, *arguments: str) -> Iterator[Terminal]:
    environment = {**os.environ, "RINGBACK_URL": world.base, "RINGBACK_API_KEY": API_KEY, "TERM": "xterm"}
    environment |= {"COLUMNS": "200", "LINES": "50"}
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "receiver.cli", *arguments], environment)
    shown = Terminal(pid, descriptor)
    try:
        yield shown
    finally:
        if not shown.has_ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(descriptor)


@pytest.mark.parametrize("way", ["q", "\x03"])
async def test_top_shows_what_the_service_does_until_it_is_ended(world: World, way: str) -> None:
    await world.ended(await world.created())
    with terminal(world, "top", "--interval", "0.5") as shown:
        await shown.until("1 created")
        before = termios.tcgetattr(shown.descriptor)
        await world.ended(await world.created())
        await shown.until("2 created")
        assert not before[3] & termios.ECHO
        shown.press(way)
        assert await shown.ended() == 0


async def test_a_watched_list_shows_a_new_task_at_once(world: World) -> None:
    first = await world.created()
    with terminal(world, "task", "list", "--watch") as shown:
        await shown.until(first)
        second = await world.created()
        await shown.until(second)
        os.kill(shown.pid, signal.SIGINT)
        assert await shown.ended() == 0
