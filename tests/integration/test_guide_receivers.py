"""The receivers of the guide to webhooks, as they stand there, against real deliveries."""

import asyncio
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from receiver.domain.signatures import standard_headers
from tests.fakes.ports import free_port
from tests.fakes.world import World, in_process

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.sqlite_only("programs of subscribers")]

GUIDE = Path(__file__).parents[2] / "deploy" / "guides" / "webhooks.md"
SECRET = "whsec_Zm9yIHRlc3RzIG9mIHRoZSBndWlkZSBhbG9uZSwgMzI="
BLOCKS = re.findall(r"^```(python|javascript|go)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
ENDINGS = {"python": "py", "javascript": "mjs", "go": "go"}
STANDARD_WEBHOOKS = "standardwebhooks"
_START_SECONDS = 60.0


@dataclass
class Receiver:
    """A program that listens at `url` and prints what it has received."""

    url: str
    process: asyncio.subprocess.Process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return (await self.process.stdout.readline()).decode().strip()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, backend: str) -> AsyncIterator[World]:
    async with in_process(tmp_path_factory.mktemp("receivers")) as world:
        yield world


@asynccontextmanager
async def running(command: Sequence[str], folder: Path) -> AsyncIterator[Receiver]:
    """Start a program, and wait until it listens."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": f"{port}"},
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                assert process.returncode is None
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
        yield Receiver(f"http://127.0.0.1:{port}/", process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def command_of(language: str, source: Path) -> list[str]:
    """Return the command that runs a program; skip the test where what it needs is not on this machine."""
    if language == "python":
        return [sys.executable, str(source)]
    program = shutil.which({"javascript": "node", "go": "go"}[language])
    if program is None:
        pytest.skip(f"there is no program for {language} here")
    return [program, str(source)] if language == "javascript" else [await built(program, source)]


async def built(go: str, source: Path) -> str:
    """Return the program that Go makes of a file, with nothing from elsewhere."""
    target = str(source.with_suffix(""))
    alone = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    process = await asyncio.create_subprocess_exec(go, "build", "-o", target, str(source), env=alone)
    assert await process.wait() == 0
    return target


async def post(url: str, body: bytes, *, secret: str = SECRET, age: int = 0, sent: bytes | None = None) -> int:
    """Send a signed request; return the status of the answer. `sent` goes in the place of what was signed."""
    headers = standard_headers([secret], "an-event", int(time.time()) - age, body)
    async with httpx.AsyncClient() as client:
        return (await client.post(url, content=body if sent is None else sent, headers=headers)).status_code


async def test_the_guide_has_a_receiver_with_the_package_and_one_by_hand() -> None:
    has_package = [(language, STANDARD_WEBHOOKS in text) for language, text in BLOCKS]
    expected = [("python", True), ("python", False), ("javascript", True), ("javascript", False), ("go", False)]
    assert has_package == expected


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(number, id=f"{language}-{number}", marks=[pytest.mark.long] if language == "go" else [])
        for number, (language, _) in enumerate(BLOCKS)
    ],
)
async def test_a_receiver_takes_what_is_ours_once_and_nothing_else(world: World, tmp_path: Path, block: int) -> None:
    language, text = BLOCKS[block]
    source = tmp_path / f"receiver.{ENDINGS[language]}"
    source.write_text(text)
    command = await command_of(language, source)
    if language == "javascript" and STANDARD_WEBHOOKS in text:
        link_package(tmp_path)
    async with running(command, tmp_path) as receiver:
        webhook = await world.webhook(endpoint_url=receiver.url, secret=SECRET, event_types=["task.completed"])
        task = await world.created()
        assert await receiver.line() == f"task.completed {task}"
        path = f"/api/v1/webhooks/{webhook['id']}/rotate-secret"
        assert (await world.api.post(path, json={"overlap_seconds": 600})).status_code == 200
        task = await world.created()
        assert await receiver.line() == f"task.completed {task}"
        await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")
        body = b'{"type":"task.failed","timestamp":"2026-01-31T09:30:00.000000Z","data":{"task_id":"x"}}'
        refused = [
            await post(receiver.url, body, secret=SECRET.replace("Z", "Y")),
            await post(receiver.url, body, age=3600),
            await post(receiver.url, body, age=-3600),
            await post(receiver.url, body, sent=body.replace(b"failed", b"completed")),
        ]
        async with httpx.AsyncClient() as client:
            refused.append((await client.post(receiver.url, content=body)).status_code)
        assert refused == [400] * 5
        assert [await post(receiver.url, body) for _ in range(2)] == [204, 204]
        assert await receiver.line() == "task.failed x"
        receiver.process.kill()
        assert await receiver.line() == ""


def link_package(folder: Path) -> None:
    """Let a program find the package where npm has it for all users; skip the test where it is not."""
    for modules in ("/usr/lib/node_modules", "/usr/local/lib/node_modules", os.environ.get("NODE_PATH", "")):
        if modules and (Path(modules) / STANDARD_WEBHOOKS).is_dir():
            (folder / "node_modules").symlink_to(modules)
            return
    pytest.skip("npm has not installed the package standardwebhooks here")
