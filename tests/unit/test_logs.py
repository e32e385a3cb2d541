"""Records of the log: what Python itself would print, which settings are shown, and what the access log hides."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.api.access_log import shown_path, shown_query
from receiver.settings import changed_settings, load_settings

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
