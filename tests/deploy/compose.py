"""The compose files, started with podman-compose: PostgreSQL, a migration, two replicas and Caddy; and SQLite alone.

Images of PostgreSQL and Caddy are built from Debian's packages here, with the interface of the public ones that the
files name: their variables, folders and commands.
"""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import httpx

from tests.deploy.podman import BASE, IMAGE, ROOT, Podman, client_of
from tests.fakes.ports import free_port

_PODMAN_COMPOSE = "podman-compose==1.6.0"
_STAGES = (["database"], ["migration"], ["ringback-1", "ringback-2"], ["proxy"])
_HEALTHY_SECONDS = 120
_POSTGRES, _CADDY = "localhost/postgres:test", "localhost/caddy:test"
_POSTGRES_ENTRY = """#!/bin/sh
set -eu
data=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
  mkdir -p $data && chown postgres $data /run/postgresql && chmod 700 $data
  cp "$POSTGRES_PASSWORD_FILE" /tmp/password && chown postgres /tmp/password
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0"
fi
PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
if [ ! -e $data/PG_VERSION ]; then
  initdb --pgdata=$data --username="$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 >/dev/null
  echo "host all all all scram-sha-256" >>$data/pg_hba.conf
  echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D $data postgres >/dev/null
fi
exec postgres -D $data -c listen_addresses='*'
"""
_POSTGRES_FILE = f"""
FROM {BASE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql \\
 && ln -s /usr/lib/postgresql/*/bin/pg_isready /usr/local/bin/pg_isready
COPY entry.sh /entry.sh
ENTRYPOINT ["/entry.sh"]
STOPSIGNAL SIGINT
"""
_CADDY_FILE = f"""
FROM {BASE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends caddy libcap2-bin wget \\
 && setcap -r /usr/bin/caddy || true
ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/config
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
"""


def check(on: Podman) -> None:
    """Start both files and use what they started. Raises `AssertionError`."""
    with TemporaryDirectory(prefix="ringback-compose-") as folder:
        _build_stand_ins(on, Path(folder))
        project = Path(folder, "project")
        copytree(ROOT / "deploy", project / "deploy")
        environment = {**os.environ, "PIAPI_API_KEY": "no-real-key"}
        subprocess.run(
            [str(project / "deploy" / "make-secrets"), str(project / "deploy" / "secrets")], env=environment, check=True
        )
        key = (project / "deploy" / "secrets" / "api-key").read_text().strip()
        compose = _Compose(on, _program(Path(folder)), project)
        _check_smallest(compose, key)
        _check_whole(compose, key)


class _Compose:
    """Runs podman-compose on a project."""

    def __init__(self, on: Podman, program: Path, project: Path) -> None:
        self.on = on
        self._program = program
        self._project = project

    @contextmanager
    def up(self, file: str, settings: Mapping[str, str], stages: Sequence[Sequence[str]]) -> Iterator[None]:
        """Start the services of a file, each stage when the one before is healthy; remove them when the context ends.

        The stages follow `depends_on`: podman 4.3 starts no container whose dependencies have dependencies, and checks
        health with timers of systemd alone.
        """
        environment = {**self.on.environment, **settings, "RINGBACK_IMAGE": IMAGE}
        # podman-compose knows podman's own options only as these.
        options = [f"--podman-args={' '.join(self.on.command[1:])}"]
        command = [str(self._program), *options, "-f", str(self._project / "deploy" / file)]

        def run(*arguments: str) -> None:
            done = subprocess.run(
                [*command, *arguments], env=environment, capture_output=True, text=True, timeout=600, check=False
            )
            assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"

        try:
            for services in stages:
                run("up", "--detach", "--no-build", "--no-deps", *services)
                self._wait_healthy()
            yield
        except BaseException:
            for line in self.on.output("ps", "--all", "--format", "{{.Names}} {{.Status}}").splitlines():
                log = self.on.run("logs", "--tail=15", line.split()[0], check=False)
                print(line, log.stdout[-1500:], log.stderr[-1500:], sep="\n", file=sys.stderr)
            raise
        finally:
            run("down", "--volumes")

    def _wait_healthy(self) -> None:
        """Wait until each running container is healthy, and the migration has ended well."""
        for name in self.on.output("ps", "--format", "{{.Names}}").split():
            if "migration" in name:
                assert self.on.output("wait", name) == "0"
                continue
            _wait_healthy(self.on, name)


def _wait_healthy(on: Podman, name: str) -> None:
    end = time.monotonic() + _HEALTHY_SECONDS
    while on.run("healthcheck", "run", name, check=False).returncode != 0:
        assert time.monotonic() < end, f"{name} is not healthy after {_HEALTHY_SECONDS} s"
        time.sleep(0.5)


def _check_smallest(compose: _Compose, key: str) -> None:
    port = free_port()
    with (
        compose.up("compose.sqlite.yaml", {"RINGBACK_PORT": str(port)}, [["ringback"]]),
        client_of(f"http://127.0.0.1:{port}", key) as api,
    ):
        assert api.get("/readyz").status_code == 200
        assert api.get("/api/v1/tasks").status_code == 200
    print("compose: compose.sqlite.yaml: ready behind its published port")


def _check_whole(compose: _Compose, key: str) -> None:
    http, https = free_port(), free_port()
    settings = {
        "RINGBACK_PUBLIC_URL": f"http://127.0.0.1:{http}",
        "RINGBACK_SITE": "http://",
        "RINGBACK_HTTP_PORT": str(http),
        "RINGBACK_HTTPS_PORT": str(https),
        "RINGBACK_POSTGRES_IMAGE": _POSTGRES,
        "RINGBACK_CADDY_IMAGE": _CADDY,
    }
    with compose.up("compose.yaml", settings, _STAGES), client_of(settings["RINGBACK_PUBLIC_URL"], key) as api:
        created = api.post("/api/v1/tasks", json={"tasks": [{"model": "m", "task_type": "t", "input": {}}]})
        assert created.is_success, created.text
        assert api.get("/api/v1/tasks").json()["data"]["data"]
        assert api.get("/metrics").status_code == 404
        results = _restarted_under_load(compose.on, settings["RINGBACK_PUBLIC_URL"], key)
        print(f"compose: compose.yaml: migrated, two replicas behind Caddy; each restarted under load: {dict(results)}")
        assert results.keys() == {"200"}, results
        written = [compose.on.run("logs", name) for name in compose.on.output("ps", "--format", "{{.Names}}").split()]
        assert not any(key in log.stdout + log.stderr for log in written), "a log has the key"


def _restarted_under_load(on: Podman, url: str, key: str) -> Counter[str]:
    """Restart one replica after the other while requests come; return how many had which result."""
    results: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        with client_of(url, key) as client:
            while not over.is_set():
                try:
                    results[str(client.get("/api/v1/tasks").status_code)] += 1
                except httpx.HTTPError as error:
                    results[type(error).__name__] += 1

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        for number in (1, 2):
            name = f"ringback_ringback-{number}_1"
            on.run("restart", "--time=60", name)
            _wait_healthy(on, name)
    finally:
        over.set()
        for thread in asking:
            thread.join()
    return results


def _build_stand_ins(on: Podman, folder: Path) -> None:
    for tag, text in ((_POSTGRES, _POSTGRES_FILE), (_CADDY, _CADDY_FILE)):
        context = folder / tag.rpartition("/")[2].replace(":", "-")
        context.mkdir()
        (context / "Dockerfile").write_text(text)
        (context / "entry.sh").write_text(_POSTGRES_ENTRY)
        (context / "entry.sh").chmod(0o755)
        on.build(context / "Dockerfile", tag, context=context)


def _program(folder: Path) -> Path:
    """Install podman-compose."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "tools")], check=True)
    pip = [str(folder / "tools" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, _PODMAN_COMPOSE], check=True)
    return folder / "tools" / "bin" / "podman-compose"
