"""The units in a container that runs systemd: start, restart under load, reload, watchdog."""

import re
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.deploy.podman import BASE, IMAGE, ROOT, Podman
from tests.fakes.ports import free_port

_TAG = "localhost/ringback-systemd:test"
_DOCKERFILE = f"""
FROM {IMAGE} AS ringback
FROM {BASE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd systemd-sysv dbus procps
COPY --from=ringback /opt/ringback /opt/ringback
COPY deploy/systemd/ringback.service deploy/systemd/ringback.socket /etc/systemd/system/
COPY deploy/systemd/ringback.env /etc/ringback/ringback.env
RUN cd /etc/ringback && umask 077 && for name in secret-key api-key piapi-api-key; do \\
      head -c 48 /dev/urandom | base64 -w 0 | tr -d '/+=' > $name; done \\
 && systemctl enable ringback.socket ringback.service
ENTRYPOINT []
CMD ["/sbin/init"]
"""
_RESTARTS = 5
_CLIENTS = 8
_DEADLINE_SECONDS = 90.0
_WATCHDOG_SECONDS = 3


def check(on: Podman) -> None:
    """Check the units on the image that was built. Raises `AssertionError`."""
    with TemporaryDirectory() as folder:
        dockerfile = Path(folder, "Dockerfile")
        dockerfile.write_text(_DOCKERFILE)
        ignored = Path(folder, "ignored")
        ignored.write_text("*\n!deploy/systemd\n")
        on.build(dockerfile, _TAG, f"--ignorefile={ignored}", context=ROOT)
    port = free_port()
    with on.running("--privileged", "--systemd=always", "--network=host", _TAG) as container:
        unit = _Unit(on, container)
        unit.prepare(port, free_port())
        unit.systemctl("start", "ringback.service")
        exposure = unit.run("systemd-analyze", "security", "--no-pager", "ringback.service").splitlines()[-1]
        print(f"systemd: ready; {exposure.split('→ ')[-1]}")
        _check_restarts(unit, port)
        _check_reload(unit, port)
        _check_watchdog(unit, port)
        unit.systemctl("stop", "ringback.service")
        print(f"systemd: stopped, result {unit.shown('Result')}")
        assert unit.shown("Result") == "success"


class _Unit:
    """The service in its container."""

    def __init__(self, on: Podman, container: str) -> None:
        self._on = on
        self._container = container

    def run(self, *command: str) -> str:
        return self._on.output("exec", self._container, *command)

    def systemctl(self, *arguments: str) -> None:
        """Run systemctl. Raises `AssertionError` with the service's log."""
        done = self._on.run("exec", self._container, "systemctl", *arguments, check=False)
        if done.returncode != 0:
            log = self.run("journalctl", "--no-pager", "--lines=40", "--output=cat", "--unit=ringback.service")
            raise AssertionError(f"systemctl {' '.join(arguments)}: {done.stderr}\n{log}")

    def shown(self, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", "ringback.service")

    def prepare(self, port: int, metrics: int) -> None:
        """Wait for systemd, move the service to free ports, and shorten the watchdog's time."""
        _until(
            "systemd runs",
            lambda: (
                self._on.run("exec", self._container, "systemctl", "is-system-running", check=False).stdout.strip()
                in ("running", "degraded")
            ),
        )
        # As on a machine: systemd hands credentials over by a mount that it makes in a namespace of its own.
        self.run("mount", "--make-rshared", "/")
        self.systemctl("stop", "ringback.service", "ringback.socket")
        script = (
            "mkdir -p /etc/systemd/system/ringback.socket.d /etc/systemd/system/ringback.service.d"
            f" && printf '[Socket]\\nListenStream=\\nListenStream=127.0.0.1:{port}\\n'"
            " > /etc/systemd/system/ringback.socket.d/port.conf"
            f" && printf '[Service]\\nWatchdogSec={_WATCHDOG_SECONDS}\\n'"
            " > /etc/systemd/system/ringback.service.d/watchdog.conf"
            f" && sed -i 's/127.0.0.1:9464/127.0.0.1:{metrics}/' /etc/ringback/ringback.env"
        )
        self.run("sh", "-c", script)
        self.systemctl("daemon-reload")


def _check_restarts(unit: _Unit, port: int) -> None:
    """Restart it again and again while clients make a connection for each request."""
    results: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            results[_ask(port)] += 1

    clients = [threading.Thread(target=ask) for _ in range(_CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(_RESTARTS):
            unit.systemctl("restart", "ringback.service")
    finally:
        over.set()
        for client in clients:
            client.join()
    print(f"systemd: {_RESTARTS} restarts under load: {dict(results)}")
    assert results.keys() == {"200"}, results


def _check_reload(unit: _Unit, port: int) -> None:
    before = unit.shown("MainPID")
    unit.systemctl("reload", "ringback.service")
    assert _ask(port) == "200"
    assert unit.shown("MainPID") == before
    print("systemd: a reload keeps it running")


def _check_watchdog(unit: _Unit, port: int) -> None:
    """Stop its process with SIGSTOP: systemd kills it and starts it again."""
    before, began = unit.shown("MainPID"), time.monotonic()
    unit.run("kill", "-STOP", before)
    _until("it was started again", lambda: unit.shown("MainPID") not in (before, "0") and _ask(port) == "200")
    log = unit.run("journalctl", "--no-pager", "--output=cat", "--unit=ringback.service", "--grep=Watchdog timeout")
    assert re.search("Watchdog timeout", log), log
    print(
        f"systemd: a stopped process is replaced after {time.monotonic() - began:.1f} s "
        f"(watchdog: {_WATCHDOG_SECONDS} s)"
    )


def _until(what: str, is_true: object) -> None:
    """Ask again and again until something is true. Raises `AssertionError` after a while."""
    end = time.monotonic() + _DEADLINE_SECONDS
    while not is_true():  # type: ignore[operator]
        assert time.monotonic() < end, f"not within {_DEADLINE_SECONDS:g} s: {what}"
        time.sleep(0.2)


def _ask(port: int) -> str:
    """Return the status of an answer on a connection of its own, or what kept it from coming."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/livez", headers={"connection": "close"})
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
