"""What the command line prints of what others sent: nothing that a terminal obeys, and no line that is not its own."""

import ast
import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner

from receiver.cli import progress
from receiver.printable import printable, printable_json
from receiver.telemetry.log import configure_logging, get_logger
from tests.fakes.command_line import app
from tests.fakes.servers import served

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f[red]markup[/red]\u202etxt\u2066\u200b\u2028\rno\nringback: forged"
"""Sets a terminal's title, clears it, colours it, turns the text around, hides characters, and forges a line."""
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
ID = "01998c2e-7d1b-7f00-8000-000000000000"
NUMBERS = (
    "matched",
    "done",
    "failed",
    "progress",
    "attempt_count",
    "deliveries",
    "sent",
    "delivered",
    "pending",
    "dead",
    "cancelled",
    "started_at",
)
TEXTS = (
    *("task_id", "model", "task_type", "created_at", "ended_at", "endpoint_url", "format", "description", "secret"),
    *("event_type", "event_id", "webhook_id", "last_error", "next_attempt_at", "settled_at", "name", "scope", "hint"),
    *("key", "kind", "since", "until", "job_id", "action", "run_id", "replay_id", "provider_task_id", "expires_at"),
    *("target", "actor", "address"),
)
ITEM: dict[str, Any] = {
    **dict.fromkeys(TEXTS, HOSTILE),
    **dict.fromkeys(NUMBERS, 1),
    "id": HOSTILE,
    "status": "failed",
    "is_active": True,
    "last_status_code": 500,
    "rate_limit": None,
    "event_types": [HOSTILE],
    "metadata": {HOSTILE: HOSTILE},
    "error": {"message": HOSTILE, "code": HOSTILE},
    "reason": HOSTILE,
    "next": {"action": HOSTILE, "at": HOSTILE, "text": HOSTILE},
    "blocked_by": [{"code": HOSTILE, "text": HOSTILE}],
    "may": [HOSTILE],
    "credentials": [{"name": HOSTILE, "hint": HOSTILE}],
    "accounts": [{"id": HOSTILE, "name": HOSTILE, "credentials": []}],
    "output": {"image_url": HOSTILE, HOSTILE: [HOSTILE]},
    "request": {"headers": {HOSTILE: HOSTILE}},
    "limits": {HOSTILE: HOSTILE},
    "set_limits": {HOSTILE: HOSTILE},
    "before": {HOSTILE: HOSTILE},
    "after": {HOSTILE: HOSTILE},
    "attempts": [
        {
            "attempt": 1,
            "started_at": HOSTILE,
            "duration_ms": 1,
            "status_code": None,
            "error": HOSTILE,
            "response": HOSTILE,
        }
    ],
}
STEP = {**ITEM, "result": {"result_url": HOSTILE}, "completed_at": 2}
COUNTS = dict.fromkeys(
    ("events", "delivered", "waiting", "dead", "cancelled", "filtered", "unknown", "switched_off", "missing"), 1
)
LISTING = {"count": 1, "shown": [{"delivery_id": HOSTILE, "event_id": HOSTILE, "status": HOSTILE}]}
REPORT = {
    **{"since": HOSTILE, "until": HOSTILE, "is_cut": True, "adds_up": False, "events": {"count": 1}},
    "tasks": {"created": 1, "ended": 1, "open": 0, "by_status": {HOSTILE: 1}},
    "runs": {"created": 1, "ended": 1, "open": 0, "by_status": {HOSTILE: 1}},
    "gaps": {"count": 1, "kinds": [{"kind": HOSTILE, "meaning": HOSTILE, **LISTING}]},
    "deliveries": {
        "webhooks": {"shown": [{"webhook_id": HOSTILE, "endpoint_url": HOSTILE, "state": HOSTILE, **COUNTS}]},
        "callbacks": COUNTS,
        "total": COUNTS,
    },
    **dict.fromkeys(("dead", "overdue_tasks", "overdue_deliveries"), LISTING),
}
STATS: dict[str, Any] = {
    **dict.fromkeys(("since", "until", "step", "counted_until", "model"), HOSTILE),
    "tasks": {
        **dict.fromkeys(("created", "completed", "failed", "cancelled", "by_webhook", "by_poll", "by_other"), 1),
        **{"now": {HOSTILE: 1}, "counted_up_to": 1, "oldest_due_at": HOSTILE},
        "models": [
            {**dict.fromkeys(("created", "completed", "failed"), 1), "model": HOSTILE}
            | dict.fromkeys(("p50_seconds", "p95_seconds", "p99_seconds"), 0.5)
        ],
        "series": [dict.fromkeys(("created", "completed", "failed"), 1)],
    },
    "deliveries": {
        **dict.fromkeys(("attempts", "delivered", "failed", "dead", "p50_ms", "p95_ms", "p99_ms"), 1),
        **{"oldest_due_at": HOSTILE, "series": [{"delivered": 1}]},
    },
    "webhooks": {
        "shown": [
            {
                **dict.fromkeys(("webhook_id", "endpoint_url", "disabled_reason", "next_due_at"), HOSTILE),
                **{"is_active": is_active, "failing_since": HOSTILE, "pending": 1},
            }
            for is_active in (True, False)
        ]
    },
    "providers": [
        {"name": HOSTILE, "calls_per_second": 1.0, "paused_seconds": 1, "reserved_seconds": 1, "key_is_refused": True}
    ],
    "service": {"version": HOSTILE, "replicas": 1},
}
COMMANDS = {
    "task create": ("--model", "m", "--task-type", "t"),
    "task get": (ID,),
    "task list": (),
    "task export": (),
    "task wait": (ID,),
    "task explain": (ID,),
    "task refresh": (ID,),
    "task cancel": (ID,),
    "task retry": (ID,),
    "run create": ("-f", "-"),
    "run get": (ID,),
    "run graph": (ID,),
    "run explain": (ID,),
    "run cancel": (ID,),
    "webhook add": ("https://example.com",),
    "webhook list": (),
    "webhook test": (ID,),
    "webhook replay": (ID, "--since", "1h"),
    "webhook recover": (ID, "--since", "1h"),
    "webhook rotate": (ID,),
    "webhook remove": (ID,),
    "delivery list": (),
    "delivery get": (ID,),
    "delivery explain": (ID,),
    "delivery retry": (ID,),
    "key create": ("--name", "n"),
    "key list": (),
    "key revoke": (ID,),
    "key rotate-master": (),
    "organization create": ("n",),
    "organization list": (),
    "organization limits": (ID,),
    "provider list": (),
    "provider check": ("fal",),
    "provider account list": ("fal",),
    "provider account add": ("fal", "n"),
    "provider account rotate": ("fal", "n"),
    "provider account remove": ("fal", "n"),
    "audit list": (),
    "report": (),
    "top": (),
    "dashboard": ("--print",),
    "listen": ("--forward-to", "http://127.0.0.1:9/"),
}
NOT_CLIENTS = {"serve", "demo", "sandbox", "migrate", "backup", "restore", "health", "init", "doctor", "mcp"} | {
    *(f"database {name}" for name in ("check", "compact", "size", "partition", "after-restore")),
}
"""`health` sends no key; `tests/integration/test_cli_health.py` has what it prints. `mcp` prints the protocol alone."""


def lists_end(request: Request) -> bool:
    return request.method == "GET" and request.url.path.rsplit("/", 1)[-1] in (
        "tasks",
        "webhooks",
        "deliveries",
        "keys",
        "organizations",
        "providers",
        "accounts",
        "audit",
    )


async def hostile(request: Request) -> Response:
    if request.headers["authorization"] == "Bearer refused":
        return JSONResponse({"error": {"message": HOSTILE, "code": HOSTILE, "type": HOSTILE}}, 400)
    data: Any = (
        {**ITEM, "steps": [STEP], "run_id": ID, "task_id": ID}
        if request.method == "POST"
        else {**ITEM, "steps": [STEP]}
    )
    if request.url.path.endswith("/report"):
        data = REPORT
    elif request.url.path.endswith("/stats"):
        data = STATS
    elif request.url.path.endswith("/events"):
        event = {"id": HOSTILE, "sequence": 1, "type": HOSTILE, "timestamp": HOSTILE, "data": {"task_id": HOSTILE}}
        body = (
            f"event: message\ndata: {json.dumps(event)}\n\nevent: reset\ndata: {json.dumps({'message': HOSTILE})}\n\n"
        )
        return Response(body + "event: message\ndata: nonsense\n\n", media_type="text/event-stream")
    elif lists_end(request):
        data = {"object": "list", "data": [ITEM, ITEM], "has_more": False, "next_cursor": None}
    return JSONResponse({"code": 200, "data": data, "message": HOSTILE})


def command_names(group: Any, before: str = "") -> Iterator[str]:
    for name, command in getattr(group, "commands", {}).items():
        yield from command_names(command, f"{before}{name} ") if hasattr(command, "commands") else [f"{before}{name}"]


def test_every_command_is_tried_here() -> None:
    names = set(command_names(typer.main.get_command(app)))
    assert names - NOT_CLIENTS == COMMANDS.keys()


async def test_no_command_prints_what_a_terminal_obeys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    routes = [Route("/{path:path}", hostile, methods=["GET", "POST", "PATCH", "DELETE"])]
    async with served(Starlette(routes=routes)) as url:
        for key in ("accepted", "refused"):
            environment = {"RINGBACK_URL": url, "RINGBACK_API_KEY": key}
            for name, arguments in COMMANDS.items():
                for form in ((), ("--json",)):
                    command = [*name.split(), *arguments, *form]
                    result = await asyncio.to_thread(CliRunner().invoke, app, command, input="{}", env=environment)
                    check(command, result.stdout, result.stderr, key)


def check(command: list[str], out: str, err: str, key: str) -> None:
    assert OBEYED.search(out + err) is None, (command, out, err)
    assert "\nringback: forged" not in out + err, command
    if key == "refused":
        assert "forged" in err, command  # the message is shown, as one line
    if "--json" in command and out and command[0] != "listen" and command[:2] != ["task", "export"]:
        document = json.loads(out)
        assert key == "refused" or HOSTILE in repr_of(document), command


def repr_of(document: Any) -> list[str]:
    """Return all texts of a document."""
    if isinstance(document, dict):
        return [text for pair in document.items() for part in pair for text in repr_of(part)]
    if isinstance(document, list):
        return [text for part in document for text in repr_of(part)]
    return [document] if isinstance(document, str) else []


def test_live_displays_show_no_control_characters_and_no_markup() -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=False, width=200)
    console.print(progress._steps_table({"id": HOSTILE, "status": "processing", "steps": [{**STEP, "id": HOSTILE}]}))
    assert OBEYED.search(drawn.getvalue()) is None
    assert "[red]markup" in drawn.getvalue()


def test_only_the_console_prints() -> None:
    """Other modules of the command line call `receiver.cli.console`, so that no print can be forgotten."""
    found = []
    for path in (Path(__file__).parents[2] / "receiver" / "cli").rglob("*.py"):
        if path.name == "console.py" or path.parent.name == "demo":  # the demo prints what it made itself
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("typer.echo", "typer.secho", "click.echo", "print", "Console") or called.endswith(
                "out.write"
            ):
                found.append(f"{path.name}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_record_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging(log_format)
    try:
        get_logger("tests").warning("refused", error=HOSTILE, body=[HOSTILE], where={HOSTILE: HOSTILE})
        assert capsys.readouterr().err.count("\n") == 1
        try:
            raise ValueError(HOSTILE)
        except ValueError as error:
            get_logger("tests").error("failed", exc_info=error)
        written = capsys.readouterr().err
    finally:
        configure_logging()
    assert OBEYED.search(written) is None
    assert "\nringback: forged" not in written
    assert "ValueError" in written


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_libraries_log_has_the_same_form(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging(log_format)
    try:
        logging.getLogger("asyncio").error("failed: %s", HOSTILE)
        (line,) = capsys.readouterr().err.splitlines()
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
        traceback = capsys.readouterr().err
    finally:
        configure_logging()
    assert OBEYED.search(line + traceback) is None
    assert "asyncio" in line
    assert "\nringback: forged" not in traceback
    assert "ValueError" in traceback


def test_letters_of_every_script_stay_as_they_are() -> None:
    for text in ("Grüße, 你好, สวัสดี", "می\u200cخواهم", "👩\u200d🚀", "a\u00a0b\u3000c", "back\\slash"):
        assert printable(text) == text


@given(st.text())
def test_what_is_printed_is_one_line_that_a_terminal_only_shows(text: str) -> None:
    assert OBEYED.search(printable(text)) is None
    assert "\n" not in printable(text)
    assert printable(text, lines=True).count("\n") == text.count("\n")
    assert printable(printable(text)) == printable(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_that_is_printed_means_the_same(text: str) -> None:
    document = json.dumps({text: text}, ensure_ascii=False)
    assert json.loads(printable_json(document)) == {text: text}
    assert OBEYED.search(printable_json(document)) is None
