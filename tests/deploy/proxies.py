"""Real reverse proxies on loopback, started from the files in `deploy/proxies`.

A file is used as it is: only addresses, ports, paths and the name of the host are replaced, and options switched on as
the file says. Each replacement must be found, so a file that changes cannot leave its test behind.
"""

import asyncio
import os
import resource
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from tests.fakes.ports import free_port

FILES = Path(__file__).resolve().parents[2] / "deploy" / "proxies"
REQUIRED = "TEST_REQUIRE_PROGRAMS"
"""Set it (`.ci/run` does) to let tests fail, not skip, where a program is missing."""
HOST = "localhost"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_START_SECONDS, _STOP_SECONDS = 30.0, 10.0
_MODULES = Path("/usr/lib/apache2/modules")
_APACHE_MODULES = [
    "mpm_event",
    "authz_core",
    "headers",
    "http2",
    "proxy",
    "proxy_http",
    "proxy_balancer",
    "proxy_hcheck",
    "lbmethod_byrequests",
    "slotmem_shm",
    "socache_shmcb",
    "ssl",
    "unique_id",
    "reqtimeout",
    "rewrite",
    "alias",
    "setenvif",
    "deflate",
]


@dataclass(frozen=True)
class Place:
    """Where a proxy runs: its folder, its certificate with key, its ports, and the ports of the services behind it."""

    folder: Path
    certificate: Path
    https: int
    http: int
    upstreams: Sequence[int]


class Proxy:
    """One kind of proxy: its file, its program, and what to replace."""

    name: str
    file: str
    program: str

    def replacements(self, place: Place) -> Mapping[str, str]:
        """Return the texts of the file that name addresses and paths, with what stands for them in a test."""
        raise NotImplementedError

    def check(self, file: Path) -> list[str]:
        """Return the command that checks a file."""
        raise NotImplementedError

    def serve(self, file: Path, place: Place) -> list[str]:
        """Return the command that serves in the foreground."""
        raise NotImplementedError

    def environment(self, place: Place) -> dict[str, str]:
        """Return the variables of the program's environment."""
        return {**os.environ, "HOME": str(place.folder), "XDG_DATA_HOME": str(place.folder)}


class Nginx(Proxy):
    name, file, program = "nginx", "nginx.conf", "nginx"

    def replacements(self, place: Place) -> Mapping[str, str]:
        temporary = " ".join(f"{each}_temp_path {place.folder};" for each in ("fastcgi", "uwsgi", "scgi"))
        return {
            "user www-data;": f"user {getuser()};",
            "/run/nginx.pid": str(place.folder / "nginx.pid"),
            "/var/log/nginx": str(place.folder),
            "http {\n": f"http {{ {temporary} client_body_temp_path {place.folder}; proxy_temp_path {place.folder};\n",
            "listen 80;": f"listen 127.0.0.1:{place.http};",
            "listen 443 ": f"listen 127.0.0.1:{place.https} ",
            "/etc/ssl/ringback/fullchain.pem": str(place.certificate),
            "/etc/ssl/ringback/privkey.pem": str(place.certificate),
        }

    def check(self, file: Path) -> list[str]:
        return ["-t", "-q", "-e", "stderr", "-c", str(file)]

    def serve(self, file: Path, place: Place) -> list[str]:
        return ["-e", "stderr", "-c", str(file), "-g", "daemon off;"]


class Caddy(Proxy):
    name, file, program = "caddy", "Caddyfile", "caddy"

    def replacements(self, place: Place) -> Mapping[str, str]:
        return {
            "admin 127.0.0.1:2019": f"admin unix/{place.folder / 'admin.sock'}",
            "grace_period 35s": "grace_period 500ms",
            "http_port 80": f"http_port {place.http}",
            "https_port 443": f"https_port {place.https}",
            "ringback.example.com {": f"{HOST} {{\n\tbind 127.0.0.1",
            "/etc/ssl/ringback/fullchain.pem": str(place.certificate),
            "/etc/ssl/ringback/privkey.pem": str(place.certificate),
        }

    def check(self, file: Path) -> list[str]:
        return ["validate", "--adapter", "caddyfile", "--config", str(file)]

    def serve(self, file: Path, place: Place) -> list[str]:
        return ["run", "--adapter", "caddyfile", "--config", str(file)]


def _most_connections() -> int:
    """Return what HAProxy may be told: the limit of open files, of which a connection needs two, may be low here."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 8000 if most_files == resource.RLIM_INFINITY else min(8000, most_files // 4)


class HAProxy(Proxy):
    name, file, program = "haproxy", "haproxy.cfg", "haproxy"

    def replacements(self, place: Place) -> Mapping[str, str]:
        return {
            "maxconn 8000": f"maxconn {_most_connections()}",
            "bind :80": f"bind 127.0.0.1:{place.http}",
            "bind :443": f"bind 127.0.0.1:{place.https}",
            "/etc/ssl/ringback/ringback.pem": str(place.certificate),
        }

    def check(self, file: Path) -> list[str]:
        return ["-c", "-f", str(file)]

    def serve(self, file: Path, place: Place) -> list[str]:
        return ["-db", "-f", str(file)]


class Apache(Proxy):
    name, file, program = "apache", "apache.conf", "apache2"

    def replacements(self, place: Place) -> Mapping[str, str]:
        return {
            "/run/apache2": str(place.folder),
            "<VirtualHost *:80>": f"<VirtualHost 127.0.0.1:{place.http}>",
            "<VirtualHost *:443>": f"<VirtualHost 127.0.0.1:{place.https}>",
            "/etc/ssl/ringback/fullchain.pem": str(place.certificate),
            "/etc/ssl/ringback/privkey.pem": str(place.certificate),
        }

    def check(self, file: Path) -> list[str]:
        return ["-t", "-f", str(file), *self._before(file.parent)]

    def serve(self, file: Path, place: Place) -> list[str]:
        ports = (f"Listen 127.0.0.1:{port}" for port in (place.http, place.https))
        return ["-DFOREGROUND", "-f", str(file), *self._before(file.parent), *_directives("-C", ports)]

    @staticmethod
    def _before(folder: Path) -> list[str]:
        """Return what Debian's own files say before a site's file: modules, and where the server keeps its files."""
        loads = (f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _APACHE_MODULES)
        own = (f"PidFile {folder}/apache.pid", f"ErrorLog {folder}/error.log", f"DefaultRuntimeDir {folder}")
        return [*_directives("-C", loads), *_directives("-C", own), *_directives("-C", (f"ServerName {HOST}",))]


def _directives(flag: str, directives: Iterable[str]) -> list[str]:
    return [word for each in directives for word in (flag, each)]


PROXIES: dict[str, Proxy] = {each.name: each for each in (Nginx(), Caddy(), HAProxy(), Apache())}


def program(name: str) -> str:
    """Return the path of a program; without it skip the test, or let it fail where it is required."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        missing = f"{name} is not installed (Debian: see .ci/run)"
        if os.environ.get(REQUIRED):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def rendered(proxy: Proxy, place: Place, options: Sequence[str] = (), changed: Mapping[str, str] | None = None) -> Path:
    """Write the proxy's file for a place; return its path.

    `options` are the words to remove from lines, as the file says; `changed` has further texts to replace.
    """
    text = (FILES / proxy.file).read_text(encoding="utf-8")
    for option in options:
        assert f"#{option} " in text, (proxy.name, option)
        text = text.replace(f"#{option} ", "")
    if "socket" in options:
        text = "\n".join(line for line in text.splitlines() if "127.0.0.1:8080" not in line) + "\n"
    for old, new in {**proxy.replacements(place), **(changed or {})}.items():
        assert old in text, (proxy.name, old)
        text = text.replace(old, new)
    text = text.replace("ringback.example.com", HOST)
    for number, port in enumerate(place.upstreams):
        assert f"127.0.0.1:{8080 + number}" in text, (proxy.name, number)
        text = text.replace(f"127.0.0.1:{8080 + number}", f"127.0.0.1:{port}")
    file = place.folder / proxy.file
    file.write_text(text, encoding="utf-8")
    return file


def new_place(folder: Path, certificate: Path, *upstreams: int) -> Place:
    """Return a place in a new folder, with free ports."""
    folder.mkdir(parents=True, exist_ok=True)
    return Place(folder, certificate, free_port(), free_port(), upstreams)


def checked(proxy: Proxy, file: Path, place: Place) -> subprocess.CompletedProcess[str]:
    """Have the proxy's own program check a file."""
    command = [program(proxy.program), *proxy.check(file)]
    return subprocess.run(command, capture_output=True, text=True, env=proxy.environment(place), timeout=60)


@asynccontextmanager
async def served(proxy: Proxy, file: Path, place: Place) -> AsyncIterator[str]:
    """Serve with a file; yield the URL when the proxy accepts connections with TLS. At the end stop it."""
    command = [program(proxy.program), *proxy.serve(file, place)]
    log = place.folder / "output.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=output, env=proxy.environment(place), cwd=place.folder
        )
    try:
        await _accepts(process, place, log)
        yield f"https://{HOST}:{place.https}"
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _accepts(process: asyncio.subprocess.Process, place: Place, log: Path) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", place.https, ssl=trusting(place.certificate), server_hostname=HOST
                )
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
    raise AssertionError(f"the proxy did not start:\n{log.read_text()}")


def trusting(certificate: Path) -> ssl.SSLContext:
    """Return a client's context that accepts this certificate alone."""
    return ssl.create_default_context(cafile=certificate)
