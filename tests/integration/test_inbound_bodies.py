"""What providers really send: bodies that are almost JSON, packed bodies, short secrets, odd headers and queries."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
import pytest_asyncio

from receiver.domain.content_encoding import unpack
from receiver.inbound import receive
from tests.fakes.inbound import PICTURE, SILENT, hook_secret, notice, post
from tests.fakes.rows import RECEIPTS, select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNREPORTED = {"webhook": "lost"}
SHARED = "123456"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only its own tasks."""
    folder = tmp_path_factory.mktemp("world")
    async with in_process(folder, piapi_webhook_secret=SHARED, max_body_bytes=str(64 * 1024)) as world:
        yield world


async def completion(world: World, task_id: str, **output: Any) -> dict[str, Any]:
    """Return the body of the webhook that completes a task."""
    provider_task_id = (await world.task(task_id))["provider_task_id"]
    return notice(provider_task_id, "completed", output=PICTURE | output)


def receipts_of(world: World, task_id: str) -> list[dict[str, Any]]:
    return [receipt for receipt in select(world, RECEIPTS) if receipt["task_uid"] == task_id]


def packed_twice(body: bytes) -> bytes:
    return gzip.compress(zlib.compress(body))


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


ODD: dict[str, tuple[Callable[[bytes], bytes], Any]] = {
    "an escaped lone surrogate": (lambda body: body.replace(b"@", b"cut \\ud83d"), "cut \ufffd"),
    "a raw lone surrogate": (lambda body: body.replace(b"@", b"cut \xed\xa0\xbd"), "cut \ufffd"),
    "a raw surrogate pair": (lambda body: body.replace(b"@", b"\xed\xa0\xbd\xed\xb8\x80"), "\U0001f600"),
    "an invalid byte": (lambda body: body.replace(b"@", b"caf\xe9"), "caf\ufffd"),
    "a raw line break": (lambda body: body.replace(b"@", b"a\nb"), "a\nb"),
    "a raw NUL": (lambda body: body.replace(b"@", b"a\0b"), "ab"),
    "an unknown escape": (lambda body: body.replace(b"@", b"C:\\dir"), "C:\\dir"),
    "NaN": (lambda body: body.replace(b'"@"', b"NaN"), None),
    "an infinity": (lambda body: body.replace(b'"@"', b"-Infinity"), None),
    "a number that is too large": (lambda body: body.replace(b'"@"', b"1e999"), None),
    "an integer of 5000 digits": (lambda body: body.replace(b'"@"', b"7" * 5000), None),
    "an integer beyond 64 bits": (lambda body: body.replace(b'"@"', b"18446744073709551616"), 18446744073709551616.0),
    "a UTF-8 BOM": (lambda body: b"\xef\xbb\xbf" + body, "@"),
    "UTF-16 with a BOM": (lambda body: body.decode().encode("utf-16"), "@"),
    "UTF-16 without a BOM": (lambda body: body.decode().encode("utf-16-be"), "@"),
    "UTF-32": (lambda body: body.decode().encode("utf-32"), "@"),
    "NULs at the end": (lambda body: body + b"\0\0", "@"),
}


@pytest.mark.parametrize("name", ODD)
async def test_a_result_with_odd_bytes_in_it_completes_the_task(world: World, name: str) -> None:
    change, note = ODD[name]
    task_id = await world.created(SILENT)
    body = change(orjson.dumps(await completion(world, task_id, note="@")))
    assert (await post(world, task_id, content=body)).status_code == 200
    task = await world.task(task_id)
    assert task["status"] == "completed"
    assert task["output"]["image_url"] == PICTURE["image_url"]
    assert task["output"]["note"] == note
    assert receipts_of(world, task_id) == []


async def test_an_odd_name_is_stored_too(world: World) -> None:
    task_id = await world.created(SILENT)
    body = orjson.dumps(await completion(world, task_id, **{"@": 1})).replace(b"@", b"x\\ud83d\\u0000")
    assert (await post(world, task_id, content=body)).status_code == 200
    assert (await world.task(task_id))["output"]["x\ufffd"] == 1


async def test_every_value_that_is_read_is_stored_as_it_is(world: World) -> None:
    numbers = [2**64 - 1, -(2**63), 1.7976931348623157e308, 5e-324, -0.0, 1e19, 0.1]
    texts = ["\uffff\ufffe\x7f\x85\u2028\ufeff", "\U0010ffff", "\x01\x1f", "x" * 20_000, "\\u0000", "\\ud83d"]
    names = {text[:50]: None for text in texts}
    task_id = await world.created(SILENT)
    body = await completion(world, task_id, note=[numbers, texts, names, [[[[{}]]]]])
    assert (await post(world, task_id, content=b"\xef\xbb\xbf" + orjson.dumps(body))).status_code == 200
    assert (await world.task(task_id))["output"]["note"] == [numbers, texts, names, [[[[{}]]]]]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("deflate, gzip", packed_twice),
        ("utf-8", bytes),
    ],
)
async def test_a_packed_body_is_applied(world: World, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    task_id = await world.created(SILENT)
    body = pack(b"\xef\xbb\xbf" + orjson.dumps(await completion(world, task_id)))
    assert (await send(world, task_id, body, ("content-encoding", encoding))).status_code == 200
    assert (await world.task(task_id))["status"] == "completed"


@pytest.mark.parametrize("headers", [(), (("content-encoding", "gzip"),)])
async def test_a_packed_body_is_unpacked_apart_from_the_event_loop(
    world: World, headers: tuple[tuple[str, str], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def unpacking(*given: Any) -> bytes:
        threads.append(current_thread() is not main_thread())
        return unpack(*given)

    monkeypatch.setattr(receive, "unpack", unpacking)
    task_id = await world.created(SILENT)
    body = gzip.compress(orjson.dumps(await completion(world, task_id)))
    assert (await send(world, task_id, body, *headers)).status_code == 200
    assert threads == [True]


async def test_several_content_encoding_headers_are_one_list(world: World) -> None:
    task_id = await world.created(SILENT)
    body = packed_twice(orjson.dumps(await completion(world, task_id)))
    headers = (("content-encoding", "deflate"), ("content-encoding", "gzip"))
    assert (await send(world, task_id, body, *headers)).status_code == 200


async def send(world: World, task_id: str, body: bytes, *headers: tuple[str, str]) -> httpx.Response:
    secret = ("x-webhook-secret", hook_secret(world, task_id))
    url = f"{world.base}/hooks/piapi/{task_id}"
    return await world.provider.post(url, content=body, headers=[secret, *headers])


async def polled_to_its_end(world: World, task_id: str) -> bool:
    """Return whether the task ends soon, by a poll and not by a webhook."""
    await world.ended(task_id, seconds=5)
    return bool((await world.events(task_id))[-1]["source"] == "poll")


async def test_a_body_that_unpacks_to_more_than_the_bound_is_refused_and_the_task_is_polled_now(world: World) -> None:
    task_id = await world.created(UNREPORTED)
    await world.ended_at_the_provider()
    answer = await send(world, task_id, gzip.compress(b" " * (64 * 1024 + 1)), ("content-encoding", "gzip"))
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (413, 413, None)
    assert "unpacked" in answer.json()["message"]
    assert await polled_to_its_end(world, task_id)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br"])
async def test_an_unknown_content_encoding_is_refused_and_the_task_is_polled_now(world: World, encoding: str) -> None:
    task_id = await world.created(UNREPORTED)
    await world.ended_at_the_provider()
    answer = await send(world, task_id, b"\x8b\x00\x80", ("content-encoding", encoding))
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert answer.json()["data"] is None
    assert "use gzip, deflate or none" in answer.json()["message"]
    assert await polled_to_its_end(world, task_id)


async def test_a_broken_gzip_body_is_kept_as_a_receipt_and_the_task_is_polled_now(world: World) -> None:
    task_id = await world.created(UNREPORTED)
    await world.ended_at_the_provider()
    secret = hook_secret(world, task_id)
    body = gzip.compress(orjson.dumps({"note": "kept", "x": secret, "config": {"webhook_config": {"secret": secret}}}))
    answer = await send(world, task_id, body[:-4], ("content-encoding", "gzip"))
    assert (answer.status_code, answer.json()["message"]) == (400, "the gzip body is cut off")
    (receipt,) = receipts_of(world, task_id)
    assert (receipt["reason"], receipt["message"]) == ("malformed", "the gzip body is cut off")
    assert "kept" in receipt["body"]
    assert secret not in receipt["body"]
    assert await polled_to_its_end(world, task_id)


async def test_a_body_that_is_not_packed_though_its_header_says_so_is_kept_as_it_came(world: World) -> None:
    task_id = await world.created(SILENT)
    answer = await send(world, task_id, b'{"data": "as it came"}', ("content-encoding", "gzip"))
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert receipts_of(world, task_id)[0]["body"] == '{"data":"as it came"}'


async def test_a_proxy_may_unpack_a_body_and_leave_its_header_or_pack_it_without_one(world: World) -> None:
    for pack, headers in ((bytes, [("content-encoding", "gzip")]), (gzip.compress, [])):
        task_id = await world.created(SILENT)
        body = orjson.dumps(await completion(world, task_id))
        assert (await send(world, task_id, pack(body), *headers)).status_code == 200
        assert (await world.task(task_id))["status"] == "completed"


async def test_a_body_nested_too_deeply_is_refused(world: World) -> None:
    task_id = await world.created(SILENT)
    body = orjson.dumps(await completion(world, task_id, note="@")).replace(b'"@"', b"[" * 2000 + b"]" * 2000)
    answer = await post(world, task_id, content=body)
    assert (answer.status_code, answer.json()["message"]) == (400, "the body is nested too deeply")


async def created_elsewhere(world: World, body: bytes, secret: bytes = SHARED.encode()) -> httpx.Response:
    headers = {b"x-webhook-secret": secret}
    return await world.provider.post(f"{world.base}/hooks/piapi", content=body, headers=headers)


async def test_a_short_shared_secret_garbles_no_id_no_url_and_no_number(world: World) -> None:
    config = {"webhook_config": {"endpoint": "https://r.example.com", "secret": SHARED}}
    output = {"video_url": "https://x.example/123456/v.mp4", "seed": 1234567, "size": 123456, "echo": SHARED}
    body = notice("ab-123456-cd", "completed", output=output, config=config)
    assert (await created_elsewhere(world, orjson.dumps(body))).status_code == 200
    task = await world.task("ab-123456-cd")
    assert (task["status"], task["provider_task_id"]) == ("completed", "ab-123456-cd")
    expected = {**output, "echo": "***"}
    assert {name: task["output"][name] for name in expected} == expected
    assert f'"{SHARED}"' not in json.dumps(task)


async def test_the_receipt_of_a_body_with_a_short_shared_secret_is_readable_and_does_not_show_it(world: World) -> None:
    url = "https://x.example/123456/v.mp4"
    body = f'{{"id": "ab-123456-cd", "url": "{url}", "n": 1234567, "a": "{SHARED}", secret: {SHARED}, "secret": "123456'
    assert (await created_elsewhere(world, body.encode())).status_code == 400
    kept = next(row["body"] for row in select(world, RECEIPTS) if "ab-123456-cd" in row["body"])
    assert kept == f'{{"id": "ab-123456-cd", "url": "{url}", "n": 1234567, "a": "***", secret: ***, "secret": "***"'


async def test_the_tasks_own_secret_is_redacted_anywhere(world: World) -> None:
    task_id = await world.created(SILENT)
    secret = hook_secret(world, task_id)
    hidden = "".join(f"\\u{ord(each):04x}" for each in secret).encode()
    body = orjson.dumps(await completion(world, task_id, note=f"got {secret}!", more="@", **{secret: 1}))
    assert (await post(world, task_id, content=body.replace(b"@", hidden))).status_code == 200
    task = await world.task(task_id)
    assert secret not in json.dumps(task)
    assert (task["output"]["note"], task["output"]["more"], task["output"]["***"]) == ("got ***!", "***", 1)


async def raw_status(world: World, path: str, secret: str, body: bytes = b"{}") -> int:
    """Send a request with exactly these bytes as the secret's header, which no HTTP library does; return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(world.base).port)
    head = f"POST {path} HTTP/1.1\r\nhost: ringback\r\ncontent-length: {len(body)}\r\nx-webhook-secret:{secret}\r\n\r\n"
    try:
        writer.write(head.encode() + body)
        async with asyncio.timeout(5):
            return int((await reader.readuntil(b"\r\n")).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("form", ["{}", " {} ", "  {}", "\t{}\t "])
async def test_blanks_around_the_secret_are_ignored(world: World, form: str) -> None:
    task_id = await world.created(SILENT)
    # 400: it is authentic, and no task.
    assert await raw_status(world, f"/hooks/piapi/{task_id}", form.format(hook_secret(world, task_id))) == 400
    assert await raw_status(world, "/hooks/piapi", form.format(SHARED)) == 400
    assert await raw_status(world, "/hooks/piapi", form.format("12 3456")) == 401


async def test_several_secret_headers_count_only_if_they_are_equal(world: World) -> None:
    task_id = await world.created(SILENT)
    secret = hook_secret(world, task_id)
    assert (await send(world, task_id, b"{}", ("x-webhook-secret", secret))).status_code == 400
    assert (await send(world, task_id, b"{}", ("x-webhook-secret", "another"))).status_code == 401


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_a_secret_with_other_letters_counts_in_both_encodings(tmp_path: Path, encoding: str) -> None:
    async with in_process(tmp_path, piapi_webhook_secret="schlüssel-1") as world:
        assert (await created_elsewhere(world, b"{}", "schlüssel-1".encode(encoding))).status_code == 400
        assert (await created_elsewhere(world, b"{}", "schlussel-1".encode(encoding))).status_code == 401
        assert (await created_elsewhere(world, b"{}", b"schl?ssel-1")).status_code == 401


SECOND_ATTEMPT = (
    *("attempt=2&trace=1", "trace=1&attempt=2", "attempt=2&attempt=2", "%61ttempt=%32", "attempt=x&attempt=2"),
    *("attempt=2&attempt=999999999999", "&&=&%&attempt=2&"),
)
FIRST_ATTEMPT = (
    *(
        "trace=1",
        "attempt=0",
        "attempt=-2",
        "attempt=%D9%A2",
        "attempt=" + "2" * 5000,
        "attempt=",
        "&&=&%",
        "attempt=1",
    ),
)


@pytest.mark.parametrize("query", SECOND_ATTEMPT + FIRST_ATTEMPT, ids=lambda query: query[:30])
async def test_the_attempt_is_found_in_any_query(world: World, query: str) -> None:
    task_id = await world.created(SILENT)
    failure = notice((await world.task(task_id))["provider_task_id"], "failed", error={"code": 1, "message": "x"})
    assert (await post(world, task_id, json=failure)).status_code == 200
    assert (await world.api.post(f"/api/v1/tasks/{task_id}/retry")).status_code == 200
    async with asyncio.timeout(10):
        while (await world.task(task_id))["provider_task_id"] is None:
            pass
    body = orjson.dumps(await completion(world, task_id))
    url = f"{world.base}/hooks/piapi/{task_id}?{query}"
    answer = await world.provider.post(url, content=body, headers={"x-webhook-secret": hook_secret(world, task_id)})
    assert answer.status_code == 200
    is_second = query in SECOND_ATTEMPT
    assert ((await world.task(task_id))["status"] == "completed") == is_second
    assert ([receipt["reason"] for receipt in receipts_of(world, task_id)] == []) == is_second


async def test_every_answer_has_piapis_form(world: World) -> None:
    task_id = await world.created(SILENT)
    url = f"{world.base}/hooks/piapi/{task_id}"
    answers = [
        await post(world, task_id, json=await completion(world, task_id)),
        await post(world, task_id, content=b"<html>"),
        await post(world, task_id, secret="wrong", content=b""),
        await world.provider.post(f"{world.base}/hooks/unknown/{task_id}"),
        await world.provider.put(url),
        await post(world, task_id, content=b" " * (64 * 1024 + 1)),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 401, 404, 405, 413]
    assert answers[4].headers["allow"] == "POST"
    for answer in answers:
        body = answer.json()
        assert (set(body), body["code"], body["data"]) == ({"code", "data", "message"}, answer.status_code, None)
