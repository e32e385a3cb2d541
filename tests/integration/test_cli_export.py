"""`ringback task export` against the real service, behind what breaks connections."""

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner, Result

from receiver.cli import export
from receiver.cli.export import COLUMNS
from tests.fakes.command_line import app
from tests.fakes.servers import served
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.sqlite_only("the command uses HTTP alone; other tests cover the database")

TASKS = 450
FORMULA = '=HYPERLINK("https://example.com","x")'
Disturb = Callable[[int, Send], Awaitable[bool]]
"""Called with the number of a request; returns whether it has answered it."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with in_process(tmp_path) as world:
        task = {
            "model": FORMULA,
            "task_type": "txt2img",
            "input": {"prompt": "a\ncat", "sandbox": {"submit": "refuse"}},
        }
        tasks = [{**task, "metadata": {"number": str(number)}} for number in range(TASKS)]
        assert (await world.api.post("/api/v1/tasks", json={"tasks": tasks})).status_code in (200, 202)
        yield world


@asynccontextmanager
async def between(world: World, disturb: Disturb) -> AsyncIterator[str]:
    """Serve the world's lists of tasks, each after `disturb`."""
    count = 0

    async def relay(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        if scope["type"] != "http":
            return
        count += 1
        if await disturb(count, send):
            return
        answer = await world.api.get(f"{scope['path']}?{scope['query_string'].decode()}")
        await send({"type": "http.response.start", "status": answer.status_code, "headers": []})
        await send({"type": "http.response.body", "body": answer.content})

    async with served(relay) as url:
        yield url


async def run(url: str, *arguments: str) -> Result:
    environment = {"RINGBACK_URL": url, "RINGBACK_API_KEY": API_KEY}
    return await asyncio.to_thread(CliRunner().invoke, app, ["task", "export", *arguments], env=environment)


async def test_each_task_is_exported_once_while_others_are_created_and_connections_break(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PAUSE_SECONDS", 0.0)

    async def disturb(number: int, send: Send) -> bool:
        await world.created(metadata={"number": "late"})
        if number not in (2, 4):
            return False
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        return True  # the server closes the connection before the body is there

    file = tmp_path / "tasks.jsonl"
    async with between(world, disturb) as url:
        result = await run(url, "--output", str(file), "--json")
        assert json.loads(result.stdout) == {"file": str(file), "tasks": TASKS + 1}, result.stderr
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({task["task_id"] for task in found}) == len(found)
    # One was created before the first page was asked for, none after it is there.
    assert sorted(task["metadata"]["number"] for task in found) == sorted([*map(str, range(TASKS)), "late"])
    assert found[1]["input"]["prompt"] == "a\ncat"


async def test_no_file_is_left_of_an_export_that_fails(world: World, tmp_path: Path) -> None:
    async def disturb(number: int, send: Send) -> bool:
        if number == 2:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
        return number == 2

    folder = tmp_path / "out"
    folder.mkdir()
    async with between(world, disturb) as url:
        assert (await run(url, "--output", str(folder / "tasks.jsonl"))).exit_code == 3
    assert list(folder.iterdir()) == []
    (folder / "kept").write_text("as it was")
    assert (await run(world.base, "--output", str(folder / "kept"))).exit_code == 2
    assert (folder / "kept").read_text() == "as it was"
    assert (await run(world.base, "--output", str(folder / "kept"), "--force", "--metadata", "number=3")).exit_code == 0
    assert (folder / "kept").read_text().count("\n") == 1


async def test_csv_names_its_columns_and_has_no_formula(world: World) -> None:
    result = await run(world.base, "--format", "csv", "--metadata", "number=7")
    header, row = csv.reader(result.stdout.splitlines())
    found: dict[str, Any] = dict(zip(header, row, strict=True))
    assert tuple(header) == COLUMNS
    assert found["model"] == f"'{FORMULA}"
    assert json.loads(found["input"])["prompt"] == "a\ncat"
    assert json.loads(found["metadata"]) == {"number": "7"}
