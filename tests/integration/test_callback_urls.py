"""Callback URLs go out byte for byte as they were registered, from the registration to the request line."""

from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.fakes.raw_server import RawServer
from tests.fakes.rows import DELIVERIES, Rows, eventually
from tests.fakes.world import World, in_process

ACCEPTED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
TARGETS = {
    "/x?sig=a%2Bb%2Fc%3D%3D": "/x?sig=a%2Bb%2Fc%3D%3D",
    "/%2F%2f/%zz/a/../b/./c//d?": "/%2F%2f/%zz/a/../b/./c//d?",
    "?a=b+c;d&&": "/?a=b+c;d&&",
    "/hook#fragment": "/hook",
    "": "/",
    "/é?ü=%2F": "/%C3%A9?%C3%BC=%2F",
}


def headers_in(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def are_settled(rows: Rows) -> bool:
    return bool(rows) and all(row["settled_at"] for row in rows)


@pytest.mark.parametrize(("target", "sent"), TARGETS.items())
async def test_a_webhook_is_called_as_it_was_registered(tmp_path: Path, target: str, sent: str) -> None:
    async with in_process(tmp_path) as world, RawServer(ACCEPTED) as server:
        webhook = await world.webhook(endpoint_url=server.url(target), event_types=["task.completed"])
        assert webhook["endpoint_url"] == server.url(target)
        await world.created()
        (row,) = await eventually(world, DELIVERIES, are_settled)
        assert row["status"] == "delivered"
        (listed,) = (await world.api.get(f"/api/v1/webhooks/{webhook['id']}/deliveries")).json()["data"]["data"]
        shown = (await world.api.get(f"/api/v1/deliveries/{listed['id']}")).json()["data"]
        assert shown["endpoint_url"] == shown["request"]["url"] == server.url(target)
    assert server.request_lines == [f"POST {sent} HTTP/1.1".encode()]
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    headers = headers_in(head)
    assert headers["host"] == f"127.0.0.1:{server.port}"
    Webhook(webhook["secret"]).verify(body, headers)


async def test_a_client_s_own_callback_is_called_as_it_was_given(world: World) -> None:
    target = "/x?sig=a%2Bb%2Fc%3D%3D&next=/a/../b"
    async with RawServer(ACCEPTED) as server:
        config: dict[str, Any] = {"webhook_config": {"endpoint": server.url(target), "secret": "a-clients-secret"}}
        task_id = await world.created(config=config)
        await world.ended(task_id)
        await eventually(world, DELIVERIES, are_settled)
        assert set(server.request_lines) == {f"POST {target} HTTP/1.1".encode()}


async def test_a_ping_is_sent_to_the_url_as_registered(world: World) -> None:
    async with RawServer(ACCEPTED) as server:
        webhook = await world.webhook(endpoint_url=server.url("/x?sig=%2B%2f"))
        answer = (await world.api.post(f"/api/v1/webhooks/{webhook['id']}/test")).json()["data"]
        assert (answer["delivered"], answer["status_code"]) == (True, 200)
    assert server.request_lines == [b"POST /x?sig=%2B%2f HTTP/1.1"]


@pytest.mark.parametrize("target", ["/a\r\nx-planted: y", "/a\nb", "/a\rb", "/a b", "/a\x00b"])
async def test_line_ends_and_blanks_are_refused_when_registered(world: World, target: str) -> None:
    answer = await world.api.post("/api/v1/webhooks", json={"endpoint_url": f"http://127.0.0.1:9{target}"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_endpoint_url", "endpoint_url")


async def test_a_subscriber_s_9_kb_header_is_no_failure(world: World) -> None:
    head = b"HTTP/1.1 200 OK\r\nx-long: " + b"y" * 9_000 + b"\r\ncontent-length: 2\r\n\r\nok"
    async with RawServer(head) as server:
        await world.webhook(endpoint_url=server.url("/"), event_types=["task.completed"])
        await world.created()
        (row,) = await eventually(world, DELIVERIES, are_settled)
    assert (row["status"], row["attempt"]) == ("delivered", 1)
