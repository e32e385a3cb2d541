"""`ringback health`: what it asks, prints and returns, against real listeners."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from receiver.api.health import Health
from receiver.serving.metrics_listener import MetricsServer, metrics_listening
from tests.fakes.command_line import app
from tests.fakes.servers import bound

pytestmark = pytest.mark.no_database("it asks over HTTP alone")


class Reason:
    """Why the service is not ready at the moment; None while it is."""

    text: str | None = None

    async def fault(self) -> str | None:
        return self.text


@pytest.fixture
def reason() -> Reason:
    return Reason()


@contextmanager
def listening_at(address: str, reason: Reason) -> Iterator[str]:
    """Serve health at an address; yield the address that it has."""
    with metrics_listening(address) as listening:
        server = MetricsServer(Health(reason.fault, lambda: b"", None), listening)
        server.start()
        try:
            yield address if address.startswith("/") else "{}:{}".format(*listening.getsockname()[:2])
        finally:
            server.stop()


def health(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["health", *arguments], env=environment)


def test_it_tells_whether_the_service_is_ready_and_why_not(reason: Reason) -> None:
    with listening_at("127.0.0.1:0", reason) as address:
        for options, environment in (
            (("--url", f"http://{address}/"), {}),
            ((), {"RINGBACK_URL": f"http://{address}"}),
            ((), {"RINGBACK_METRICS_ADDRESS": address, "RINGBACK_URL": "http://127.0.0.1:9"}),
        ):
            result = health(*options, **environment)
            assert (result.exit_code, result.output) == (0, "ready\n")
        reason.text = "the disk is full\x1b[2J\nringback: forged"
        result = health("--url", f"http://{address}")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "ringback: not ready: the disk is full\\x1b[2J\\nringback: forged\n"
        assert health("--live", "--url", f"http://{address}").output == "live\n"


def test_it_asks_on_a_unix_socket(reason: Reason, tmp_path: Path) -> None:
    with listening_at(str(tmp_path / "health.sock"), reason) as path:
        assert health("--uds", path).output == "ready\n"
        assert health(RINGBACK_METRICS_ADDRESS=path).output == "ready\n"
        assert health(RINGBACK_UDS=path).output == "ready\n"
    gone = health("--uds", path)
    assert (gone.exit_code, gone.stderr.count("\n")) == (1, 1)


def test_a_service_that_listens_at_all_addresses_is_asked_on_this_machine(reason: Reason) -> None:
    with listening_at("127.0.0.1:0", reason) as address:
        port = address.rpartition(":")[2]
        assert health(RINGBACK_METRICS_ADDRESS=f"0.0.0.0:{port}").output == "ready\n"
        assert health(RINGBACK_HOST="0.0.0.0", RINGBACK_PORT=port).output == "ready\n"


def test_one_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with bound() as silent:
        silent.listen()
        result = health("--timeout", "0.1", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (result.exit_code, result.stderr) == (1, "ringback: no answer within 0.1 s\n")


@pytest.mark.parametrize("arguments", [("--url", "ftp://127.0.0.1"), ("--timeout", "0"), ("--url", "")])
def test_what_cannot_be_asked_is_a_fault_of_usage(arguments: tuple[str, ...]) -> None:
    assert health(*arguments).exit_code == 2


def test_it_imports_nothing_slow() -> None:
    """It runs every few seconds, and shares the container's processor with the service.

    What the command line's own library imports for any command is not counted: pydantic.
    """
    with bound() as refused:
        url = f"http://127.0.0.1:{refused.getsockname()[1]}"
        program = (
            "import sys, atexit; from receiver.cli import main\n"
            "sys.argv = ['ringback', 'health', '--url', sys.argv[1]]\n"
            "slow = {'models', 'httpx', 'receiver.settings', 'rich', 'sqlalchemy', 'structlog', 'uvicorn'}\n"
            "atexit.register(lambda: print(sorted(slow & set(sys.modules))))\nmain()"
        )
        asked = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout) == (1, "[]\n")
    assert "cannot be reached (Connection refused)" in asked.stderr
