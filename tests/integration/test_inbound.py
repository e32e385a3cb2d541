"""Inbound webhooks: which are authentic, and what happens to a body that cannot be used."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.writer import Writer
from tests.fakes.inbound import hook_secret, notice, post, refused_count, report
from tests.fakes.rows import RECEIPTS, select
from tests.fakes.world import FAST_POLLING, World, in_process, in_processes

pytestmark = pytest.mark.asyncio(loop_scope="module")

BY_HAND = {"outcome": "never", "webhook": "lost"}
UNREPORTED = {"webhook": "lost"}
"""A task whose end Ringback learns only by polling."""
MALFORMED = {
    "empty": b"",
    "not JSON": b"<html><body>upstream says hello</body></html>",
    "cut off": b'{"timestamp": 1, "data": {"task_id": "t-1", "sta',
    "a list": b"[]",
    "a number": b"17",
    "no task": b'{"timestamp": 1}',
    "a task without an id": b'{"data": {"status": "completed"}}',
    "an id that is neither a text nor a number": b'{"data": {"task_id": [5], "status": "completed"}}',
    "too deep": b'{"data": ' + b'{"a":' * 400 + b"1" + b"}" * 401,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


def receipts_of(world: World, task_id: str) -> list[dict[str, Any]]:
    return [receipt for receipt in select(world, RECEIPTS) if receipt["task_uid"] == task_id]


async def half_sent(world: World, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[str, str]:
    """Send a request's headers and at most a part of its body; return the status line and the whole response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(world.base).port)
    lines = [f"POST {path} HTTP/1.1", "host: ringback", *(f"{name}: {value}" for name, value in headers.items())]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        async with asyncio.timeout(5):
            answer = (await reader.readuntil(b"}")).decode()
    finally:
        writer.close()
        await writer.wait_closed()
    return answer.partition("\r\n")[0], answer


@pytest.mark.parametrize("secret", ["", "wrong", "x" * 43, "é"])
async def test_a_wrong_secret_is_refused_and_only_counted(world: World, secret: str) -> None:
    task_id = await world.created(BY_HAND)
    before, events = await refused_count(world), await world.events(task_id)
    answer = await post(world, task_id, secret=secret, json=notice("x", "failed"))
    assert (answer.status_code, answer.json()["code"]) == (401, 401)
    assert await refused_count(world) == before + 1
    assert await world.events(task_id) == events
    assert receipts_of(world, task_id) == []


async def test_the_secret_of_another_task_is_refused(world: World) -> None:
    task_id, other_id = await world.created(BY_HAND), await world.created(BY_HAND)
    answer = await post(world, task_id, secret=hook_secret(world, other_id), json=notice("x", "failed"))
    assert answer.status_code == 401


async def test_a_missing_secret_is_refused_whether_or_not_the_task_exists(world: World) -> None:
    for task_id in (await world.created(BY_HAND), new_id(), "no-id-at-all"):
        answer = await world.provider.post(f"{world.base}/hooks/piapi/{task_id}", json=notice("x", "failed"))
        assert answer.status_code == 401


@pytest.mark.parametrize("more", [{}, {"expect": "100-continue"}])
async def test_a_wrong_secret_is_refused_before_the_body_is_read(world: World, more: dict[str, str]) -> None:
    task_id = await world.created(BY_HAND)
    headers = {"x-webhook-secret": "wrong", "content-length": "1000", **more}
    status, answer = await half_sent(world, f"/hooks/piapi/{task_id}", headers)
    assert status == "HTTP/1.1 401 Unauthorized"
    assert "100 Continue" not in answer


async def test_a_wrong_secret_is_refused_before_the_database_is_queried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_process(tmp_path) as world:
        task_id = await world.created(BY_HAND)

        async def never(*_: Any, **__: Any) -> Any:
            raise AssertionError("the database was queried")

        with monkeypatch.context() as patched:
            patched.setattr(Database, "read", never)
            patched.setattr(Writer, "write", never)
            assert (await post(world, task_id, secret="wrong", json={})).status_code == 401


async def test_a_body_with_a_too_large_content_length_is_not_read_and_the_task_is_polled_now(world: World) -> None:
    task_id = await world.created(UNREPORTED)
    await world.ended_at_the_provider()
    headers = {"x-webhook-secret": hook_secret(world, task_id), "content-length": str(1024 * 1024 + 1)}
    status, answer = await half_sent(world, f"/hooks/piapi/{task_id}", {**headers, "expect": "100-continue"})
    assert status.startswith("HTTP/1.1 413 ")
    assert "100 Continue" not in answer
    assert (await world.ended(task_id, seconds=5))["status"] == "completed"
    assert (await world.events(task_id))[-1]["source"] == "poll"


async def test_a_body_that_grows_too_large_is_read_no_further_and_the_task_is_polled_now(tmp_path: Path) -> None:
    async with in_process(tmp_path, max_body_bytes="2048") as world:
        task_id = await world.created(UNREPORTED)
        await world.ended_at_the_provider()
        headers = {"x-webhook-secret": hook_secret(world, task_id), "transfer-encoding": "chunked"}
        beginning = (b"3e8\r\n" + b" " * 1000 + b"\r\n") * 3
        status, _ = await half_sent(world, f"/hooks/piapi/{task_id}", headers, beginning)
        assert status.startswith("HTTP/1.1 413 ")
        assert (await world.ended(task_id, seconds=5))["status"] == "completed"


async def test_a_body_of_exactly_the_allowed_size_is_accepted(tmp_path: Path) -> None:
    async with in_process(tmp_path, max_body_bytes="2048") as world:
        task_id = await world.created(BY_HAND)
        task = await world.task(task_id)
        body = orjson.dumps(notice(task["provider_task_id"], "completed"))
        assert (await post(world, task_id, content=body.ljust(2049))).status_code == 413
        assert (await post(world, task_id, content=body.ljust(2048))).status_code == 200


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_body_that_is_not_a_task_is_kept_as_a_receipt(world: World, body: bytes) -> None:
    task_id = await world.created(BY_HAND)
    answer = await post(world, task_id, content=body)
    assert answer.status_code == 400
    (receipt,) = receipts_of(world, task_id)
    assert (receipt["reason"], receipt["provider"]) == ("malformed", "piapi")
    assert receipt["message"] == answer.json()["message"]
    assert "webhook" not in {event["source"] for event in await world.events(task_id)}


async def test_a_task_whose_webhook_was_malformed_is_polled_now(world: World) -> None:
    task_id = await world.created(UNREPORTED)
    await world.ended_at_the_provider()
    assert (await post(world, task_id, content=b"<html>")).status_code == 400
    assert (await world.ended(task_id, seconds=5))["status"] == "completed"
    assert (await world.events(task_id))[-1]["source"] == "poll"


@pytest.mark.parametrize(
    "form", ['{{"config": {{"webhook_config": {{"secret": "{0}"', "secret={0}", "x-webhook-secret: {0}"]
)
async def test_a_receipt_holds_no_secret(world: World, form: str) -> None:
    task_id = await world.created(BY_HAND)
    secret = hook_secret(world, task_id)
    assert (await post(world, task_id, content=form.format(secret).encode())).status_code == 400
    (receipt,) = receipts_of(world, task_id)
    assert secret not in receipt["body"]
    assert "***" in receipt["body"]


async def test_a_malformed_body_with_the_shared_secret_is_a_receipt_without_a_task(tmp_path: Path) -> None:
    async with in_process(tmp_path, piapi_webhook_secret="shared-secret-1") as world:
        headers = {"x-webhook-secret": "shared-secret-1"}
        answer = await world.provider.post(f"{world.base}/hooks/piapi", content=b"<html>", headers=headers)
        assert answer.status_code == 400
        (receipt,) = select(world, RECEIPTS)
        assert (receipt["reason"], receipt["task_uid"]) == ("malformed", None)


async def test_an_unknown_status_word_changes_no_status_and_is_recorded_once(world: World) -> None:
    task_id = await world.created(BY_HAND)
    before = await world.task(task_id)
    for word in ("meditating", "Meditating", "meditating", "levitating"):
        assert (await report(world, task_id, word)).status_code == 200
    task, events = await world.task(task_id), await world.events(task_id)
    assert (task["status"], task["output"]) == (before["status"], before["output"])
    words = [event["provider_status"] for event in events if event["provider_status"] is not None]
    assert words == ["meditating", "levitating"]
    assert {event["type"] for event in events[-2:]} == {"task.updated"}
    assert (await report(world, task_id, "COMPLETED")).status_code == 200
    assert (await world.task(task_id))["status"] == "completed"


async def test_an_unknown_status_word_is_logged_once(tmp_path: Path) -> None:
    async with in_processes(tmp_path, **FAST_POLLING) as world:
        for _ in range(2):
            task_id = await world.created(BY_HAND)
            assert (await report(world, task_id, "meditating")).status_code == 200
        assert world.log().count("meditating") == 1


async def test_another_provider_or_method_is_refused(world: World) -> None:
    task_id = await world.created(BY_HAND)
    elsewhere = await world.provider.post(f"{world.base}/hooks/unknown/{task_id}", json={})
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (404, 404)
    got = await world.provider.get(f"{world.base}/hooks/piapi/{task_id}")
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
