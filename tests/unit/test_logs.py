"""Records of the log: what Python itself would print, which settings are shown, and what the access log hides."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from receiver.api.access_log import shown_path, shown_query
from receiver.settings import changed_settings, load_settings
from receiver.telemetry import log as log_module
from receiver.telemetry.log import configure_logging, get_logger, lines_together
from receiver.telemetry.records import text_line

TASK = "0199d5a0-7c1e-7aaa-8bbb-0123456789ab"


def test_what_python_itself_would_print_is_json_too() -> None:
    script = (
        "import threading, warnings\n"
        "from receiver.telemetry.log import configure_logging, log_all_output\n"
        "configure_logging('json', 'info')\n"
        "log_all_output()\n"
        "warnings.warn('old', UserWarning)\n"
        "class Broken:\n"
        "    def __del__(self): raise ValueError('in a finalizer')\n"
        "del (broken := [Broken()])[0]\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start(); thread.join()\n"
        "raise KeyError('the end')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, env=os.environ, capture_output=True, text=True)
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout) == (1, "")
    assert [record["event"] for record in records] == [
        "python warning",
        "exception ignored",
        "uncaught exception",
        "uncaught exception",
    ]
    for error, record in zip(("ValueError", "ZeroDivisionError", "KeyError"), records[1:], strict=True):
        assert error in record["exception"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ringback:p4ss@db:5432/r?sslmode=require", "postgresql://ringback@db:5432/r"),
        ("postgresql://ringback:p@/ss@db/r", "postgresql://ringback@db/r"),
        ("postgresql://ringback:p?ss@db/r", "set"),
        ("postgresql:///r?host=/run/x&password=p4ss", "postgresql:///r"),
    ],
)
def test_a_setting_is_shown_without_its_secret(url: str, shown: str) -> None:
    environment = {
        "RINGBACK_DATABASE_URL": url,
        "RINGBACK_SECRET_KEY": "Zq7vW3kXr9TmLp4cYd8NbJ2sGf6H",
        "RINGBACK_KEY_RATE": "5/s",
        "RINGBACK_LOG_LEVEL": "info",
    }
    assert changed_settings(load_settings(environment, env_file=None)) == {
        "RINGBACK_DATABASE_URL": shown,
        "RINGBACK_SECRET_KEY": "set",
        "RINGBACK_KEY_RATE": "5/s",
    }


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/hooks/piapi/{TASK}", f"/hooks/piapi/{TASK}"),
        (f"//hooks/piapi/{TASK}/the-secret", f"/hooks/piapi/{TASK}/***"),
        ("/hooks/the-secret", "/hooks/***"),
        ("/api/v1/tasks/x", "/api/v1/tasks/x"),
    ],
)
def test_a_path_is_shown_without_what_may_be_a_secret(path: str, shown: str) -> None:
    assert shown_path(path) == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"", ""),
        (b"limit=5&cursor=abc", "limit=5&cursor=abc"),
        (b"created_before=5&page=2&pageSize=3", "created_before=5&page=2&pageSize=3"),
        (b"secret=a&api_key=b&metadata=c&metadata.x=d", "secret=***&api_key=***&metadata=***&metadata.x=***"),
        (b"rb_the-key-alone", "***"),
        (b"&&", "***"),
    ],
)
def test_a_query_is_shown_without_what_may_be_a_secret(query: bytes, shown: str) -> None:
    assert shown_query(query) == shown


class Written:
    """Stands for the standard error, and keeps what each write wrote."""

    def __init__(self) -> None:
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    def flush(self) -> None:
        pass


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    found = Written()
    # Not `sys.stderr` itself, which pytest sets again between a fixture and its test.
    monkeypatch.setattr(log_module, "sys", SimpleNamespace(stderr=found))
    configure_logging("json")
    yield found
    monkeypatch.undo()
    configure_logging()


def events(text: str) -> list[str]:
    return [json.loads(line)["event"] for line in text.splitlines()]


def test_records_of_one_loop_are_one_write(written: Written) -> None:
    log = get_logger("a")
    with lines_together():
        for number in range(3):
            log.warning(f"record {number}")
        assert written.writes == []
    log.warning("another")
    assert [events(text) for text in written.writes] == [["record 0", "record 1", "record 2"], ["another"]]


def test_records_are_written_when_their_loop_fails(written: Written) -> None:
    with contextlib.suppress(ValueError), lines_together():
        get_logger("a").warning("before")
        raise ValueError
    assert [events(text) for text in written.writes] == [["before"]]


def test_a_record_of_another_thread_is_written_at_once(written: Written) -> None:
    with lines_together():
        thread = threading.Thread(target=lambda: get_logger("a").warning("of another"))
        thread.start()
        thread.join()
        assert [events(text) for text in written.writes] == [["of another"]]


def test_no_write_is_larger_than_a_pipe_takes_at_once(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_ATOMIC_BYTES", 400)
    with lines_together():
        for number in range(9):
            get_logger("a").warning(f"record {number}", text="x" * 20)
        get_logger("a").warning("long", text="x" * 1000)
        get_logger("a").warning("last")
    assert all(text.endswith("\n") for text in written.writes)
    found = [events(text) for text in written.writes]
    assert [event for each in found for event in each] == [*(f"record {number}" for number in range(9)), "long", "last"]
    assert len(found) < 11
    assert all(len(text) <= 400 or events(text) == ["long"] for text in written.writes)


class Word(StrEnum):
    ONE = "one"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two words", "'two words'"),
        ("a=b", "'a=b'"),
        ("it's", '"it\'s"'),
        ('"', "'\"'"),
        ("two\nlines", "two\\nlines"),
        ("\u202e", "\\u202e"),
        ("", ""),
        (Word.ONE, "one"),
        (1, "1"),
        (1.5, "1.5"),
        (True, "True"),
        (None, "None"),
        ([1], "[1]"),
        (["a"], "\"['a']\""),
        (Path("/tmp"), "\"PosixPath('/tmp')\""),
    ],
)
def test_a_field_of_a_line_of_text_is_quoted_where_it_must_be(value: Any, shown: str) -> None:
    record = {"timestamp": "now", "level": "info", "event": "did", "logger": "a", "first": 1, "zlast": "z"}
    line = text_line(None, "info", {**record, "value": value})
    assert line == f"now [info     ] did{' ' * 28}[a] first=1 value={shown} zlast=z"


def test_the_cleaned_parts_of_a_line_of_text() -> None:
    record = {"timestamp": "now", "level": "error", "event": "a\nb", "logger": "c\nd", "exception": "one\ntwo\x1b"}
    assert text_line(None, "error", record) == (f"now [error    ] a\\nb{' ' * 26} [c\\nd]\n  one\n  two\\x1b")
