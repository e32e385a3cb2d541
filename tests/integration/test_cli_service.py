"""The commands against a real service: `ringback serve` and `ringback sandbox` as processes."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.command import CLEAN, run_command
from tests.fakes.ports import free_port

pytestmark = pytest.mark.sqlite_only("the commands use HTTP alone; other tests cover the database")

KEY = "rb_command_Wm3xKq8ZvT5rYc7L"
METRICS_TOKEN = "the-token-of-the-metrics"
COMMAND = [sys.executable, "-m", "receiver.cli"]


@contextmanager
def running(folder: Path, *arguments: str, ready: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the end of the context; it is ready when the URL `ready` responds."""
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        environment = {**CLEAN, **settings}
        process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        transport = httpx.HTTPTransport(retries=8)  # waits 0.5, 1, 2 ... s between refused connections
        with httpx.Client(transport=transport, timeout=30) as client:
            assert client.get(ready).is_success
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    port, sandbox_port = free_port(), free_port()
    url, sandbox_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{sandbox_port}"
    with ExitStack() as stack:
        flags = ("--port", str(sandbox_port), "--duration", "0.1", "--option", "pending_seconds=0.05")
        stack.enter_context(running(folder, "sandbox", *flags, ready=f"{sandbox_url}/sandbox/stats"))
        settings = {
            "RINGBACK_API_KEY": KEY,
            "RINGBACK_PUBLIC_URL": url,
            "RINGBACK_PIAPI_BASE_URL": sandbox_url,
            "RINGBACK_PIAPI_API_KEY": "any",
            "RINGBACK_ALLOW_PRIVATE_TARGETS": "true",
        }
        stack.enter_context(running(folder, "serve", "--port", str(port), ready=f"{url}/readyz", **settings))
        yield url
        assert sandbox_url in (folder / "sandbox.log").read_text()


class Ringback:
    """Runs commands with a key."""

    def __init__(self, url: str, key: str, folder: Path) -> None:
        self._environment = {**CLEAN, "RINGBACK_URL": url, "RINGBACK_API_KEY": key}
        self._folder = folder

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        ran = asyncio.run(run_command(*arguments, folder=self._folder, environment=self._environment))
        return subprocess.CompletedProcess(arguments, *ran)

    def data(self, *arguments: str) -> Any:
        """Run a command that must succeed, with `--json`; return what it printed."""
        result = self.run(*arguments, "--json")
        assert (result.returncode, result.stderr) == (0, ""), result
        return json.loads(result.stdout)


@pytest.fixture
def ringback(url: str, tmp_path: Path) -> Ringback:
    return Ringback(url, KEY, tmp_path)


CREATE = ("task", "create", "--model", "kling", "--task-type", "video_generation", "-i", "prompt=a cat")


def test_a_task_is_created_and_completes(ringback: Ringback) -> None:
    done = ringback.data(*CREATE, "--metadata", '{"order": "17"}', "--wait", "--timeout", "30")
    assert done["status"] == "completed"
    assert done["output"]["video_url"].endswith(".mp4")
    found = ringback.data("task", "get", done["task_id"])
    assert (found["status"], found["metadata"]) == ("completed", {"order": "17"})
    listed = ringback.data("task", "list", "--metadata", "order=17", "--status", "completed")
    assert [task["task_id"] for task in listed["data"]] == [done["task_id"]]
    assert ringback.data("task", "list", "--metadata", "order=18")["data"] == []


def test_a_task_that_fails_exits_1_with_the_reason(ringback: Ringback) -> None:
    result = ringback.run(*CREATE, "-i", 'sandbox={"outcome": "failed"}', "--wait", "--timeout", "30")
    assert result.returncode == 1
    assert "task failed" in result.stdout


def test_a_task_that_the_provider_refuses_exits_2_with_its_message(ringback: Ringback) -> None:
    result = ringback.run(*CREATE, "-i", 'sandbox={"submit": "refuse"}')
    assert result.returncode == 2
    assert "the prompt was refused" in result.stderr


def test_a_task_can_be_cancelled_before_it_begins_and_not_after(ringback: Ringback) -> None:
    task = ringback.data(*CREATE, "-i", 'sandbox={"pending_seconds": 60}')
    assert ringback.run("task", "cancel", task["task_id"]).returncode == 0
    waited = ringback.run("task", "wait", task["task_id"], "--json")
    assert (waited.returncode, json.loads(waited.stdout)["status"]) == (1, "cancelled")
    assert ringback.run("task", "cancel", task["task_id"]).returncode == 2


def test_a_task_that_never_ends_times_out(ringback: Ringback) -> None:
    task = ringback.data(*CREATE, "-i", 'sandbox={"outcome": "never"}')
    result = ringback.run("task", "wait", task["task_id"], "--timeout", "0.5")
    assert result.returncode == 4


def test_an_unknown_id_exits_2(ringback: Ringback) -> None:
    for command in ("get", "wait", "cancel"):
        result = ringback.run("task", command, "01998c2e-7d1b-7f00-8000-000000000000")
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_webhooks_are_added_listed_and_removed(ringback: Ringback) -> None:
    added = ringback.data("webhook", "add", "http://127.0.0.1:9/hook", "--event", "task.completed")
    assert added["secret"].startswith("whsec_")
    assert (added["format"], added["event_types"]) == ("standard", ["task.completed"])
    given = ringback.data("webhook", "add", "http://127.0.0.1:9/pi", "--secret", "s3cret-s3cret", "--format", "pi")
    assert "secret" not in given
    cloudevents = ringback.data("webhook", "add", "http://127.0.0.1:9/ce", "--format", "cloudevents")
    assert cloudevents["format"] == "cloudevents"
    listed = ringback.run("webhook", "list")
    assert "http://127.0.0.1:9/hook" in listed.stdout
    assert added["secret"] not in listed.stdout
    for webhook in (added, given, cloudevents):
        assert ringback.run("webhook", "remove", webhook["id"]).returncode == 0
    assert ringback.data("webhook", "list")["data"] == []
    assert ringback.run("webhook", "remove", added["id"]).returncode == 2


def test_a_forbidden_url_exits_2_with_the_rule(ringback: Ringback) -> None:
    result = ringback.run("webhook", "add", "ftp://example.com")
    assert result.returncode == 2
    assert "http" in result.stderr


def test_keys_are_created_listed_and_revoked(ringback: Ringback, url: str, tmp_path: Path) -> None:
    made = ringback.data("key", "create", "--name", "reader", "--scope", "read")
    reader = Ringback(url, made["key"], tmp_path)
    assert reader.run("task", "list").returncode == 0
    assert reader.run("key", "list").returncode == 3
    assert reader.run(*CREATE).returncode == 3
    listed = ringback.run("key", "list")
    assert "reader" in listed.stdout
    assert made["key"] not in listed.stdout
    assert ringback.run("key", "revoke", made["id"]).returncode == 0
    assert made["rate_limit"] is None
    refused = reader.run("task", "list")
    assert refused.returncode == 3
    assert "RINGBACK_API_KEY" in refused.stderr


def test_a_key_may_have_its_own_rate_limit(ringback: Ringback, url: str, tmp_path: Path) -> None:
    made = ringback.data("key", "create", "--name", "slow", "--rate-limit", "0.01")
    assert made["rate_limit"] == 0.01
    assert "0.01" in ringback.run("key", "list").stdout
    slow = Ringback(url, made["key"], tmp_path)
    assert slow.run("task", "list").returncode == 0
    refused = slow.run("task", "list")
    assert refused.returncode == 3
    assert "try again in" in refused.stderr
    assert ringback.run("key", "create", "--name", "none", "--rate-limit", "0").returncode == 2


def test_a_port_in_use_is_reported(ringback: Ringback, url: str) -> None:
    result = ringback.run("sandbox", "--port", url.rpartition(":")[2])
    assert result.returncode == 3
    assert "choose another --port" in result.stderr


def check_own_listener(own: str, *, public: str) -> None:
    """Check that metrics are there, for those with the token, and no more on the public port."""
    with httpx.Client(base_url=own) as client:
        statuses = [client.get(path).status_code for path in ("/livez", "/readyz", "/metrics", "/api/v1/tasks")]
        assert statuses == [200, 200, 401, 404]
        exposed = client.get("/metrics", headers={"authorization": f"Bearer {METRICS_TOKEN}"})
        assert "ringback_updates_total" in exposed.text
        assert (exposed.headers["cache-control"], exposed.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert httpx.get(public.replace("/readyz", "/metrics")).status_code == 404


def test_the_service_stops_on_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    ready = f"http://127.0.0.1:{port}/readyz"
    own = f"127.0.0.1:{free_port()}"
    settings = {"RINGBACK_METRICS_ADDRESS": own, "RINGBACK_METRICS_TOKEN": METRICS_TOKEN}
    with running(tmp_path, "serve", "--port", str(port), ready=ready, **settings) as process:
        check_own_listener(f"http://{own}", public=ready)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)
    printed, file = (tmp_path / "serve.log").read_text(), tmp_path / "ringback.db.admin-key"
    assert file.read_text().strip().startswith("rb_")
    assert file.stat().st_mode & 0o777 == 0o600
    assert str(file) in printed
    assert file.read_text().strip() not in printed
