"""The client commands against a scripted service: exit statuses, JSON, and error messages."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from receiver.cli import waiting
from tests.fakes.command_line import app

pytestmark = pytest.mark.no_database("the service is scripted")

KEY = "rb_test_0123456789abcdef"
TASK = {"task_id": "t1", "model": "kling", "task_type": "video_generation", "status": "processing", "output": None}
DONE = {**TASK, "status": "completed", "output": {"video_url": "https://cdn.example.com/a.mp4"}}
FAILED = {**TASK, "status": "failed", "error": {"code": 1, "message": "the model failed"}}
HANG = "hang"


class ScriptedService:
    """Answers each path with the answers that were set for it, in turn; the last one is repeated."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, deque[Any]] = defaultdict(deque)
        self.requests: list[tuple[str, Request, Any]] = []
        self.requested = threading.Event()

    def set_answers(self, call: str, *answers: Any) -> None:
        """Set answers: `data` for a 200, a (status, body) or a (status, body, headers), or `HANG`."""
        self.answers[call].extend(answers)

    def body(self, call: str) -> Any:
        """Return the body of the last request of this method and path."""
        return next(body for name, _, body in reversed(self.requests) if name == call)

    def queries(self, call: str) -> list[dict[str, str]]:
        """Return the query of each request of this method and path."""
        return [dict(request.query_params) for name, request, _ in self.requests if name == call]

    async def answer(self, request: Request) -> Response:
        raw = await request.body()
        call = f"{request.method} {request.url.path}"
        self.requests.append((call, request, json.loads(raw) if raw else None))
        self.requested.set()
        queue = self.answers[call]
        if not queue:
            return JSONResponse({"code": 404, "data": None, "message": "task not found"}, 404)
        answer = queue.popleft() if len(queue) > 1 else queue[0]
        if answer == HANG:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return Response()
        status, body, *headers = answer if isinstance(answer, tuple) else (200, {"code": 200, "data": answer})
        return JSONResponse(body, status, headers=headers[0] if headers else None)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedService]:
    service = ScriptedService()
    listening = socket.create_server(("127.0.0.1", 0))
    service.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    methods = ["GET", "POST", "DELETE"]
    asgi = Starlette(routes=[Route("/{path:path}", service.answer, methods=methods)])
    server = uvicorn.Server(uvicorn.Config(asgi, log_level="warning", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    monkeypatch.setenv("RINGBACK_URL", service.url)
    monkeypatch.setenv("RINGBACK_API_KEY", KEY)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "_PAUSE_SECONDS", 0.01)
    yield service
    server.should_exit = True
    thread.join()
    listening.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def data_of(result: Result) -> Any:
    """Return the JSON that was printed; there must be no other output."""
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_a_task_is_created_in_piapis_dialect(service: ScriptedService) -> None:
    service.set_answers("POST /api/v1/task", TASK)
    webhook = ("--webhook", "https://example.com/h", "--webhook-secret", "s3cret")
    task = ("--model", "kling", "--task-type", "video_generation", "--input", '{"a": 1, "n": 1}', "-i", "n=2")
    result = run("task", "create", *task, *webhook, "--metadata", '{"order": "17"}', "--json")
    assert result.exit_code == 0
    assert data_of(result) == TASK
    assert service.body("POST /api/v1/task") == {
        "model": "kling",
        "task_type": "video_generation",
        "input": {"a": 1, "n": 2},
        "config": {"webhook_config": {"endpoint": "https://example.com/h", "secret": "s3cret"}},
        "metadata": {"order": "17"},
    }
    assert service.requests[0][1].headers["authorization"] == f"Bearer {KEY}"


def test_without_json_a_task_is_printed_for_people(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/tasks/t1", DONE)
    result = run("task", "get", "t1")
    assert result.exit_code == 0
    assert "kling/video_generation" in result.stdout
    assert "https://cdn.example.com/a.mp4" in result.stdout


@pytest.mark.parametrize(("end", "status"), [(DONE, 0), (FAILED, 1), ({**TASK, "status": "cancelled"}, 1)])
def test_create_with_wait_exits_with_the_status_of_the_tasks_end(
    service: ScriptedService, end: dict[str, Any], status: int
) -> None:
    service.set_answers("POST /api/v1/task", TASK)
    service.set_answers("GET /api/v1/task/t1", TASK, end)
    result = run("task", "create", "--model", "kling", "--task-type", "video_generation", "--wait", "--json")
    assert result.exit_code == status
    assert data_of(result) == end
    assert service.queries("GET /api/v1/task/t1") == [
        {},
        {"wait_for_completion": "true", "timeout_seconds": "30"},
    ]


def test_several_tasks_are_waited_for_concurrently_and_printed_in_order(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", TASK, TASK, TASK, DONE)
    service.set_answers("GET /api/v1/task/t2", {**DONE, "task_id": "t2"})
    result = run("task", "wait", "t1", "t2", "t1", "--json")
    assert result.exit_code == 0
    assert [task["task_id"] for task in data_of(result)["data"]] == ["t1", "t2"]


def test_one_failed_task_among_many_exits_1(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", DONE)
    service.set_answers("GET /api/v1/task/t2", {**FAILED, "task_id": "t2"})
    result = run("task", "wait", "t1", "t2")
    assert result.exit_code == 1
    assert "the model failed" in result.stdout


def test_a_wait_that_times_out_exits_4_and_prints_the_last_known_state(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", TASK, HANG)
    result = run("task", "wait", "t1", "--timeout", "0.3", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout) == TASK
    assert result.stderr == "ringback: 1 of 1 tasks have not ended after 0.3 s; wait again, or use `task get`\n"


def test_a_wait_of_0_seconds_reads_the_state_once(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", TASK)
    service.set_answers("GET /api/v1/task/t2", DONE)
    assert run("task", "wait", "t1", "--timeout", "0").exit_code == 4
    assert run("task", "wait", "t2", "--timeout", "0").exit_code == 0


def test_a_wait_continues_through_a_restart_of_the_service(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", TASK, (502, {}), (503, {"error": {"message": "full"}}), DONE)
    assert run("task", "wait", "t1").exit_code == 0


def test_a_wait_for_a_service_that_never_responded_ends_at_once(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", (503, {"error": {"message": "full"}}, {"retry-after": "7"}))
    result = run("task", "wait", "t1")
    assert (result.exit_code, result.stderr) == (3, "ringback: full; try again in 7 s\n")


def test_one_unknown_id_ends_the_whole_wait(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", TASK, HANG)
    result = run("task", "wait", "t1", "t9")
    assert (result.exit_code, result.stderr) == (2, "ringback: task not found\n")


PI_ERROR = {"error": {"type": "invalid_request_error", "code": "x", "message": "limit: too much", "request_id": "r"}}


@pytest.mark.parametrize(
    ("status", "body", "exit_code", "line"),
    [
        (400, PI_ERROR, 2, "limit: too much"),
        (404, {"code": 404, "data": None, "message": "record not found"}, 2, "record not found"),
        (409, {"code": 409, "message": "it has ended"}, 2, "it has ended"),
        (413, {}, 2, "HTTP 413"),
        (401, {"message": "no such key"}, 3, "no such key; check RINGBACK_API_KEY"),
        (401, {"data": {"task_id": "t1"}, "message": "the provider refused"}, 3, "the provider refused\n"),
        (403, {"message": "The key lacks a scope."}, 3, "The key lacks a scope; use a key with the required scope"),
        (429, {"message": "slow down"}, 3, "slow down"),
        (
            502,
            {"code": 502, "message": "check the provider's key", "error": {"code": "c"}},
            3,
            "check the provider's key",
        ),
        (500, {"description": "?"}, 3, "HTTP 500"),
        (500, ["odd"], 3, "HTTP 500"),
        (503, {"error": "full\nof\nit"}, 3, "full of it"),
        (200, {"code": 500, "message": "failed to create"}, 3, "failed to create"),
        (200, {"hello": "world"}, 3, "does not respond as Ringback does"),
        (200, "text", 3, "does not respond as Ringback does"),
        (301, {}, 3, "HTTP 301; the service has moved to"),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(
    service: ScriptedService, status: int, body: Any, exit_code: int, line: str
) -> None:
    service.set_answers("GET /api/v1/tasks/t1", (status, body))
    result = run("task", "get", "t1", "--json")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert KEY not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("task", "list", "--model", "\udce9"),
        ("task", "create", "--model", "m", "--task-type", "t", "-i", "prompt=\udce9"),
        ("task", "wait", "\udce9"),
        ("webhook", "add", "https://h.example/\udce9"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_an_argument_that_is_not_utf_8_is_a_usage_error(service: ScriptedService, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "ringback: an argument is not a text in UTF-8; write it in that encoding\n"


def test_without_a_key_the_message_says_to_set_it(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINGBACK_API_KEY")
    service.set_answers("GET /api/v1/tasks/t1", (401, {"message": "no key"}))
    assert run("task", "get", "t1").stderr == "ringback: no key; set RINGBACK_API_KEY\n"


def test_an_unreachable_service_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as bound:  # bound without listening: no other process can take the port
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        (tmp_path / ".env").write_text(f"RINGBACK_URL={url}\n")
        monkeypatch.delenv("RINGBACK_URL", raising=False)
        result = run("task", "list")
    assert result.exit_code == 3
    assert (
        result.stderr == f"ringback: cannot reach {url}; start the service with `ringback serve`, or set RINGBACK_URL\n"
    )


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8080", "http://", "http://x:y", "http://[", "http://x:99999"])
def test_an_invalid_url_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RINGBACK_URL", url)
    result = run("task", "list")
    assert result.exit_code == 2
    assert "RINGBACK_URL" in result.stderr


def test_a_list_follows_the_cursor(service: ScriptedService) -> None:
    first = {"object": "list", "data": [TASK] * 200, "has_more": True, "next_cursor": "c2"}
    last = {"object": "list", "data": [DONE], "has_more": False, "next_cursor": None}
    service.set_answers("GET /api/v1/tasks", first, last)
    result = run("task", "list", "--all", "--status", "failed", "--metadata", "order=17", "--json")
    page = data_of(result)
    assert (len(page["data"]), page["has_more"], page["next_cursor"]) == (201, False, None)
    filters = {"status": "failed", "metadata[order]": "17", "limit": "200"}
    assert service.queries("GET /api/v1/tasks") == [filters, {**filters, "cursor": "c2"}]


def test_a_list_hints_at_more_items_and_cuts_nothing_without_a_terminal(service: ScriptedService) -> None:
    url = "https://cdn.example.com/" + "x" * 300
    task = {**DONE, "output": {"video_url": url}, "progress": 100, "created_at": "2020-01-01T00:00:00Z"}
    service.set_answers("GET /api/v1/tasks", {"data": [task], "has_more": True, "next_cursor": "c"})
    result = run("task", "list", "--limit", "1")
    assert url in result.stdout
    assert "--all" in result.stderr
    assert service.queries("GET /api/v1/tasks") == [{"limit": "1"}]


def test_a_cancel_without_data_is_a_success(service: ScriptedService) -> None:
    service.set_answers("POST /api/v1/task/t1/cancel", (200, {"code": 200, "message": "success"}))
    result = run("task", "cancel", "t1")
    assert (result.exit_code, result.stdout) == (0, "t1 is cancelled\n")


def test_ctrl_c_prints_nothing(service: ScriptedService) -> None:
    service.set_answers("GET /api/v1/task/t1", TASK, HANG)
    command = [sys.executable, "-m", "receiver.cli", "task", "wait", "t1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=dict(os.environ)) as process:
        assert service.requested.wait(30)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)
    assert output == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("command", "call", "answer"),
    [
        ("delivery list", "GET /api/v1/deliveries", (200, {"data": [{"id": 1}, "odd"]})),
        ("delivery list", "GET /api/v1/deliveries", ["odd"]),
        ("webhook list", "GET /api/v1/webhooks", (200, {"data": {"data": ["odd"], "has_more": False}})),
        ("webhook test w1", "POST /api/v1/webhooks/w1/test", ["odd"]),
        ("task get t1", "GET /api/v1/tasks/t1", ["odd"]),
        ("task wait t1", "GET /api/v1/task/t1", ["odd"]),
        ("run get r1", "GET /api/v1/runs/r1", {"steps": [{}]}),
        ("run get r1", "GET /api/v1/runs/r1", (400, {"error": {"issues": [{"message": "no param"}]}})),
        ("key list", "GET /api/v1/keys", {"data": 7}),
        ("organization list", "GET /api/v1/organizations", 7),
        ("audit list", "GET /api/v1/audit", {"data": [[]], "has_more": False}),
        ("report", "GET /api/v1/report", ["odd"]),
    ],
)
def test_an_answer_of_another_shape_is_said_in_one_line(
    service: ScriptedService, command: str, call: str, answer: Any
) -> None:
    service.set_answers(call, answer)
    result = run(*command.split())
    assert result.exit_code == 3, result.stderr
    assert result.stderr.startswith(f"ringback: the answer of {service.url}{call.partition(' ')[2]} is not Ringback's")
    assert result.stderr.count("\n") == 1
