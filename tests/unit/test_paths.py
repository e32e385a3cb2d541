"""Paths as clients write them become the one form that the routes are matched with."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from receiver.api import paths
from receiver.api.paths import PathMiddleware, normal_path, segment_text
from receiver.api.routes import routes
from receiver.dashboard import routes as dashboard
from receiver.mcp.endpoint import mcp_route

IDS = st.text(min_size=1)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/livez/", "/livez"),
        ("//api/v1/task", "/api/v1/task"),
        ("/api//v1///task//", "/api/v1/task"),
        ("/hooks/piapi/T/", "/hooks/piapi/T"),
        ("/api/v1/tasks/a%2Fb", "/api/v1/tasks/a%2Fb"),
        ("/api/v1/tasks/a%2fb/events", "/api/v1/tasks/a%2Fb/events"),
        ("/api/v1/tasks/a/b/events/", "/api/v1/tasks/a%2Fb/events"),
        ("/api/v1/tasks/a/b", "/api/v1/tasks/a%2Fb"),
        ("/api/v1/task/a%20b/cancel", "/api/v1/task/a b/cancel"),
        ("/api/v1/task/x/events", "/api/v1/task/x/events"),
        ("/api/v1/webhooks/x/y/z", "/api/v1/webhooks/x/y/z"),
        ("/%61pi/v1/task", "/api/v1/task"),
    ],
)
def test_a_path_is_brought_into_one_form(raw: str, normal: str) -> None:
    assert normal_path(raw.encode()) == normal


@given(IDS, st.sampled_from(["", "/", "/events", "/refresh/"]))
def test_any_id_that_is_percent_encoded_is_one_segment_and_comes_back_whole(task_id: str, rest: str) -> None:
    path = normal_path(f"/api/v1/tasks/{quote(task_id, safe='')}{rest}".encode())
    segments = path.split("/")
    assert len(segments) == (5 if rest in ("", "/") else 6)
    assert segment_text(segments[4]) == task_id


@given(st.binary(min_size=1).filter(lambda raw: b"/" not in raw))
def test_a_segment_of_any_bytes_is_one_segment(raw: bytes) -> None:
    assert normal_path(b"/api/v1/tasks/" + raw).count("/") == 4


@pytest.mark.parametrize(("written", "text"), [("50%", "50%"), ("%zz", "%zz"), ("%%32F", "%2F"), ("%252F", "%2F")])
def test_a_percent_sign_that_encodes_nothing_stands_for_itself(written: str, text: str) -> None:
    assert segment_text(normal_path(f"/api/v1/tasks/{written}".encode()).split("/")[4]) == text


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/ringback//api/v1/task/", "/ringback/api/v1/task"),
        (b"/ringback/api/v1/tasks/a%2Fb", "/ringback/api/v1/tasks/a%2Fb"),
        (b"/ringback/livez", "as the server wrote it"),
        (b"/ringback/ringback/livez", "/ringback/livez"),
        (b"/ringback/ringback//api/v1/tasks/a%2Fb/", "/ringback/api/v1/tasks/a%2Fb"),
        (b"/ringback/ringback", "/ringback/"),
        (b"/ringback/ringbacks/livez", "as the server wrote it"),
    ],
)
async def test_a_path_is_the_same_whether_or_not_the_proxy_has_stripped_its_prefix(raw: bytes, path: str) -> None:
    assert await routed("/ringback", raw) == path


@pytest.mark.parametrize(("prefix", "raw"), [("/api", b"/api/api/v1/task"), ("/v1", b"/v1/v1/models")])
async def test_a_prefix_that_begins_like_a_path_of_ours_is_left_to_the_proxy(prefix: str, raw: bytes) -> None:
    assert await routed(prefix, raw) == "as the server wrote it"


def test_every_path_of_ours_is_known_where_prefixes_are_stripped() -> None:
    ours = [*routes(), *dashboard.routes(), mcp_route()]
    served = [route for route in ours if isinstance(route, Route)]
    assert {route.path.split("/")[1].encode() for route in served} - {b""} == paths._OURS


async def routed(prefix: str, raw: bytes) -> str:
    """Return the path that the routes get; `raw` is as uvicorn hands it on, with the prefix before what arrived."""
    seen = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["path"])

    scope = {"type": "http", "root_path": prefix, "raw_path": raw, "path": "as the server wrote it"}
    await PathMiddleware(app)(scope, None, None)  # type: ignore[arg-type]
    return str(seen[0])
