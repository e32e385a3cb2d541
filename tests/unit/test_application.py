"""The short way of webhooks and creates through the application: the same answers, and all that others have too."""

from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, request_response
from starlette.types import Message, Receive, Scope, Send

from receiver.api.answer_headers import AnswerHeadersMiddleware
from receiver.api.application import Application
from receiver.api.cors import CorsMiddleware
from receiver.api.paths import PathMiddleware
from receiver.api.routes import refuse_path, report_bug, routes
from receiver.inbound.answers import answer

ID = "0199d5a0-7c1e-7aaa-8bbb-0123456789ab"


class Hooks:
    """Stands for the inbound endpoint: it answers with what it was given, and may fail."""

    def __init__(self) -> None:
        self.ways = 0
        self.fails_after: int | None = None
        """After how many messages of its answer it fails."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.ways += "router" not in scope
        if self.fails_after == 0:
            raise LookupError("before")
        given = {name: scope.get(name) for name in ("path", "path_params", "method", "root_path")}
        await answer(send, 200, "success", data={**given, "route": scope["route"].path})
        if self.fails_after:
            raise LookupError("after")


def application(hooks: Hooks, *, direct: bool, more: Sequence[Middleware] = ()) -> Application:
    made = Application(
        direct=direct,
        routes=routes(),
        middleware=[Middleware(AnswerHeadersMiddleware), Middleware(PathMiddleware), *more],
        exception_handlers={HTTPException: refuse_path, Exception: report_bug},
    )
    made.router.redirect_slashes = False
    made.state.inbound = hooks
    return made


async def answered(
    made: Application, raw_path: str, method: str = "POST", root: str = ""
) -> tuple[int, dict[str, str], bytes, str]:
    """Return the status, the headers, the body, and what was raised, without the request's id."""
    scope = {
        "type": "http",
        "method": method,
        "path": root + raw_path,
        "raw_path": (root + raw_path).encode(),
        "root_path": root,
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("ringback", 80),
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    raised = ""
    try:
        await made(scope, receive, send)
    except LookupError as error:
        raised = str(error)
    headers = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
    assert len(dict(headers)) == len(headers)
    assert dict(headers)["x-request-id"].startswith("req_pi_")
    kept = {name: value for name, value in headers if name != "x-request-id"}
    body = b"".join(message["body"] for message in sent[1:])
    return sent[0]["status"], kept, body.replace(dict(headers)["x-request-id"].encode(), b"the request"), raised


@pytest.mark.parametrize("root", ["", "/prefix", "/hooks"])
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("path", "is_direct"),
    [
        (f"/hooks/piapi/{ID}", True),
        (f"/hooks/piapi/{ID}/the-token", True),
        ("/hooks/unknown/a-b.c~d", True),
        ("/hooks/piapi/accounts", True),
        (f"/hooks/fal/accounts/{ID}", False),
        ("/hooks/piapi", False),
        (f"/hooks/piapi/{ID}/", False),
        (f"//hooks//piapi/{ID}", False),
        (f"/hooks/piapi/{ID}/a/b", False),
        ("/hooks/piapi/a%2Fb", False),
        ("/hooks/piapi/%41", False),
        ("/hooks/", False),
        (f"/prefix/hooks/piapi/{ID}", False),
        (f"/api/hooks/piapi/{ID}", False),
    ],
)
async def test_the_short_way_answers_as_the_long_one(path: str, is_direct: bool, method: str, root: str) -> None:
    short, long = Hooks(), Hooks()
    found = await answered(application(short, direct=True), path, method, root)
    assert found == await answered(application(long, direct=False), path, method, root)
    assert (short.ways, long.ways) == (is_direct, 0)


@pytest.mark.parametrize("fails_after", [0, 2])
async def test_a_failure_on_the_short_way_is_answered_counted_and_raised(fails_after: int) -> None:
    def counts() -> list[Any]:
        of_route = {"route": "/hooks/{provider}/{task_id}", "method": "POST"}
        return [
            REGISTRY.get_sample_value("ringback_exceptions_total", {"place": "request"}) or 0,
            *(
                REGISTRY.get_sample_value(
                    "ringback_http_request_duration_seconds_count", {**of_route, "status": status}
                )
                or 0
                for status in ("2xx", "5xx")
            ),
        ]

    found, differences = [], []
    for direct in (True, False):
        hooks = Hooks()
        hooks.fails_after = fails_after
        before = counts()
        found.append(await answered(application(hooks, direct=direct), f"/hooks/piapi/{ID}"))
        differences.append([after - earlier for after, earlier in zip(counts(), before, strict=True)])
        assert hooks.ways == direct
    assert found[0] == found[1]
    assert found[0][0] == (200 if fails_after else 500)
    assert found[0][3] == ("after" if fails_after else "before")
    assert differences[0] == differences[1] == ([1, 1, 0] if fails_after else [1, 0, 1])


class Creates:
    """Stands for what the routes of creates lead to."""

    def __init__(self, application: Application) -> None:
        self.ways = 0
        self.error: Exception | None = None
        for route in application.routes:
            if isinstance(route, Route) and route.path in CREATES and "POST" in (route.methods or ()):
                route.endpoint = self.create
                route.app = request_response(self.create)

    async def create(self, request: Request) -> Response:
        self.ways += "router" not in request.scope
        if self.error is not None:
            raise self.error
        read = {name: request.scope[name] for name in ("path", "path_params", "method", "root_path")}
        return JSONResponse({**read, "route": request.scope["route"].path, "url": str(request.url)})


CREATES = ("/api/v1/task", "/api/v1/runs")


@pytest.mark.parametrize("root", ["", "/prefix", "/api"])
@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize(
    ("path", "is_direct"),
    [
        ("/api/v1/task", True),
        ("/api/v1/runs", True),
        ("/api/v1/task/", False),
        ("/api//v1/runs", False),
        ("/api/v1/tas%6B", False),
        ("/api/v1/tasks/refresh/no", False),
        ("/prefix/api/v1/task", False),
    ],
)
async def test_the_short_way_of_creates_answers_as_the_long_one(
    path: str, is_direct: bool, method: str, root: str
) -> None:
    ways, found = [], []
    for direct in (True, False):
        made = application(Hooks(), direct=direct)
        creates = Creates(made)
        found.append(await answered(made, path, method, root))
        ways.append(creates.ways)
    assert found[0] == found[1]
    assert ways == [is_direct and method == "POST", 0]


async def test_a_create_that_fails_on_the_short_way_is_answered_and_raised() -> None:
    found = []
    for direct in (True, False):
        made = application(Hooks(), direct=direct)
        creates = Creates(made)
        creates.error = LookupError("a bug")
        found.append(await answered(made, "/api/v1/task"))
        assert creates.ways == direct
    assert found[0] == found[1]
    assert (found[0][0], found[0][3]) == (500, "a bug")


async def test_creates_that_a_browser_may_ask_for_pass_what_tells_it_so() -> None:
    made = application(Hooks(), direct=True, more=[Middleware(CorsMiddleware, origins=["https://example.com"])])
    creates = Creates(made)
    assert (await answered(made, "/api/v1/task"))[0] == 200
    assert creates.ways == 0


async def test_a_request_before_the_service_runs_fails_as_any_other() -> None:
    made = application(Hooks(), direct=True)
    del made.state.inbound
    with pytest.raises(AttributeError):
        await answered(made, f"/hooks/piapi/{ID}")
