"""`ringback listen` as a process: events to a local server, verified with another library."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import standardwebhooks
from starlette.responses import Response

from tests.fakes.command import CLEAN
from tests.fakes.fork_server import Child, fork_server
from tests.fakes.rows import select
from tests.fakes.servers import bound, url_of
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.world import API_KEY, FAST_POLLING, World, as_told, in_processes

pytestmark = pytest.mark.sqlite_only("the commands use HTTP alone; other tests cover the database")

ALL = "SELECT uid FROM event ORDER BY id"


class Listen:
    """A running `ringback listen`."""

    def __init__(self, process: Child, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self.process = process
        self.stdout = stdout
        self.stderr = stderr

    async def line(self, words: str = "", *, error: bool = False, seconds: float = 20) -> str:
        """Return the next line that contains `words`."""
        stream = self.stderr if error else self.stdout
        async with asyncio.timeout(seconds):
            while True:
                line = (await stream.readline()).decode()
                assert line, await self.process.wait()
                if words in line:
                    return line.rstrip("\n")

    async def record(self) -> Any:
        """Return the next line of JSON."""
        return json.loads(await self.line())

    async def interrupt(self) -> tuple[int, str]:
        """Send SIGINT as Ctrl-C does; return the exit status, and the rest of stderr."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            return await self.process.wait(), (await self.stderr.read()).decode()


@asynccontextmanager
async def listening(world: World, *arguments: str, to: str | None = None, key: str = API_KEY) -> AsyncIterator[Listen]:
    """Run it, forwarding to `to`, by default the world's subscriber."""
    with Path(os.devnull).open("rb") as nothing:
        async with _pipe() as (stdout, out), _pipe() as (stderr, err):
            process = await fork_server().run(
                *("listen", "--forward-to", to or world.subscriber.url, *arguments),
                folder=world.folder,
                environment={**CLEAN, "RINGBACK_URL": world.base, "RINGBACK_API_KEY": key},
                streams=(nothing.fileno(), out.fileno(), err.fileno()),
            )
            for theirs in (out, err):
                theirs.close()
            try:
                yield Listen(process, stdout, stderr)
            finally:
                process.send_signal(signal.SIGKILL)
                await process.wait()


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, BinaryIO]]:
    """Make a pipe; yield a reader of it, and the end to write to."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    with open(reading, "rb") as ours, open(writing, "wb") as theirs:  # noqa: PTH123 - no path
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), ours
        )
        try:
            yield reader, theirs
        finally:
            transport.close()


def verified(received: list[ReceivedDelivery], secret: str) -> list[str]:
    """Verify the signatures of requests with a secret; return their event ids in order."""
    for each in received:
        assert standardwebhooks.Webhook(secret).verify(each.body, each.headers) == each.json
        assert each.json.keys() == {"type", "timestamp", "data"}
    return [each.event_id for each in received]


async def test_events_are_forwarded_signed_with_the_printed_secret(world: World) -> None:
    async with listening(world, "--event", "task.completed", "--model", "flux") as listen:
        assert world.subscriber.url in await listen.line()
        secret = (await listen.line("whsec_")).split()[-1]
        await world.created(model="kling")
        task_id = await world.created(model="flux")
        line = await listen.line()
        assert task_id in line
        assert "task.completed" in line
        assert " 200 in " in line
        assert await listen.interrupt() == (0, "")
    (received,) = world.subscriber.received
    assert received.json["data"] == as_told(await world.task(task_id))
    assert verified([received], secret) == [event["id"] for event in (await world.events(task_id))[-1:]]


async def test_it_resumes_at_the_next_event_after_the_service_was_killed(tmp_path: Path) -> None:
    async with in_processes(tmp_path, **FAST_POLLING) as world, listening(world, "--json") as listen:
        start = await listen.record()
        assert start.keys() == {"forward_to", "secret"}
        task_ids = await asyncio.gather(*(world.created() for _ in range(5)))
        await world.subscriber.until(lambda received: len(received) >= 7)
        await world.kill()
        assert "trying again in 1 s" in await listen.line("trying again", error=True)
        await world.start()
        await asyncio.gather(*(world.ended(task_id) for task_id in task_ids))
        await listen.line("connected again", error=True)
        stored = [row["uid"] for row in select(world, ALL)]
        await world.subscriber.until(lambda received: received and received[-1].event_id == stored[-1])
        assert verified(world.subscriber.received, start["secret"]) == stored
        printed = [await listen.record() for _ in stored]
        assert [each["id"] for each in printed] == stored
        assert {each["status"] for each in printed} == {200}
        assert (await listen.interrupt())[0] == 0


async def test_it_begins_after_the_given_event_and_signs_with_the_given_secret(world: World) -> None:
    task_id = await world.created()
    await world.ended(task_id)
    events = await world.events(task_id)
    secret = "a-secret-of-my-own"
    async with listening(world, "--json", "--secret", secret, "--since", str(events[0]["sequence"])) as listen:
        assert await listen.record() == {"forward_to": world.subscriber.url, "secret": None}
        assert [(await listen.record())["id"] for _ in events[1:]] == [event["id"] for event in events[1:]]
    for received in world.subscriber.received:
        content = f"{received.event_id}.{received.headers['webhook-timestamp']}.".encode() + received.body
        signature = base64.b64encode(hmac.digest(secret.encode(), content, hashlib.sha256)).decode()
        assert received.headers["webhook-signature"] == f"v1,{signature}"


async def test_a_local_server_that_refuses_or_is_unreachable_is_reported_and_not_retried(world: World) -> None:
    world.subscriber.answer = lambda number, _request: Response("no \x1b[31m such\nroute", 404)
    async with listening(world, "--event", "task.completed") as listen:
        await listen.line("whsec_")
        await world.created()
        assert "404 in " in (line := await listen.line())
        assert line.endswith("such route")
        assert "\x1b" not in line
    with bound() as closed:
        async with listening(world, "--json", to=url_of(closed)) as listen:
            await listen.record()
            await world.created()
            outcome = await listen.record()
    assert (outcome["status"], outcome["error"]) == (None, "could not connect")


async def test_it_reports_when_it_cannot_resume(world: World) -> None:
    async with listening(world, "--since", "1000") as listen:
        assert "event 1000 never existed" in await listen.line("missed", error=True)
        task_id = await world.created()
        await listen.line(task_id)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--secret", "short"], "8 to 500"),
        (["--event", "task.done"], "is not an event type"),
        (["--since", "x"], "--since"),
        (["--since", "-1"], "--since"),
    ],
)
async def test_wrong_usage_exits_2(world: World, arguments: list[str], fault: str) -> None:
    assert await ended(world, *arguments, fault=fault) == (2, fault)


async def test_a_wrong_key_or_an_unreachable_service_ends_it_at_once(world: World) -> None:
    assert await ended(world, key="no-such-key", fault="RINGBACK_API_KEY") == (3, "RINGBACK_API_KEY")
    assert await ended(world, to="nowhere", fault="--forward-to") == (2, "--forward-to")
    with bound() as closed:
        world.base = url_of(closed)
        assert await ended(world, fault="cannot reach") == (3, "cannot reach")


async def ended(world: World, *arguments: str, fault: str = "", **options: str) -> tuple[int, str]:
    """Run it to its end; return the exit status, and `fault` if stderr contains it, else all of stderr."""
    async with listening(world, *arguments, **options) as listen:
        async with asyncio.timeout(20):
            status, error = await listen.process.wait(), (await listen.stderr.read()).decode()
        return status, fault if fault in error else error
