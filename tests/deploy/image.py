"""The image: its size, and that it runs as a hardened container without any right."""

import re
from pathlib import Path
from time import monotonic

from tests.deploy.podman import BASE, IMAGE, Podman, client_of
from tests.fakes.ports import free_port

_MOST_MEGABYTES = 120
"""Over the base."""
_MOST_IDLE_MEGABYTES = 160
KEY = "rb_container_Wm3xKq8ZvT5rYc7L"
_HARDENED = (
    "--read-only",
    "--env=RINGBACK_HOST=127.0.0.1",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=host",
    "--tmpfs=/tmp",
)
_IMPORTS = """
import importlib, importlib.util, pathlib, pkgutil, sysconfig
import migrations, models, receiver
place = pathlib.Path(sysconfig.get_path("purelib"))
names = []
for package in (receiver, models):
    names += [found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
names += [".".join([*file.relative_to(place).parts[:-1], file.name.split(".")[0]]) for file in place.rglob("*.so")]
for name in names:
    if not name.endswith("__main__") and "libs" not in name:
        importlib.import_module(name)
assert importlib.util.find_spec("pip") is None and importlib.util.find_spec("pytest") is None
print(len(names))
"""


def check(on: Podman) -> None:
    """Check the image that was built. Raises `AssertionError`."""
    size, base = (int(on.inspect(name, "{{.Size}}")) / 1e6 for name in (IMAGE, BASE))
    print(f"image: {size - base:.0f} MB over its base of {base:.0f} MB (at most {_MOST_MEGABYTES})")
    assert size - base <= _MOST_MEGABYTES
    modules = on.output("run", "--rm", *_HARDENED, "--entrypoint=python3", IMAGE, "-c", _IMPORTS)
    print(f"image: {modules} modules can be imported, pip is not there")
    _check_service(on)
    _check_early_stop(on)


def _check_service(on: Podman) -> None:
    """Run it read-only, without capabilities; stop it; start it again on the same volume."""
    port, metrics = free_port(), free_port()
    options = (
        *(*_HARDENED, "--volume=ringback-data:/data", f"--env=RINGBACK_API_KEY={KEY}", "--memory=256m"),
        *(f"--env=RINGBACK_METRICS_ADDRESS=127.0.0.1:{metrics}", f"--env=RINGBACK_PORT={port}", IMAGE),
    )
    with on.running(*options) as container, client_of(f"http://127.0.0.1:{port}", KEY) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.get("/metrics").status_code == 404
        organization = client.get("/api/v1/organization").json()["data"]["id"]
        assert on.output("exec", container, "ringback", "health") == "ready"
        assert on.run("healthcheck", "run", container).returncode == 0
        status = Path(f"/proc/{on.inspect(container, '{{.State.Pid}}')}/status").read_text()
        assert re.search(r"^Uid:\t10001\t10001\t", status, re.MULTILINE), status
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE), status
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), status
        megabytes = int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1000
        print(
            f"image: read-only, user 10001, no capabilities: ready and healthy, {megabytes:.0f} MB of memory when idle"
        )
        assert megabytes <= _MOST_IDLE_MEGABYTES
        began = monotonic()
        on.run("stop", "--time=60", container)
        seconds, code = monotonic() - began, on.inspect(container, "{{.State.ExitCode}}")
        print(f"image: SIGTERM as PID 1 ends it after {seconds:.1f} s with exit status {code}")
        assert code == "0"
        on.run("start", container)
        assert client.get("/api/v1/organization").json()["data"]["id"] == organization
        print("image: started again on its volume, everything is there")


def _check_early_stop(on: Podman) -> None:
    """A SIGTERM that comes while Python still imports is not lost, though PID 1 ignores signals by default."""
    for _ in range(3):
        with on.running(*_HARDENED, "--env=RINGBACK_METRICS_ADDRESS=", "--env=RINGBACK_PORT=0", IMAGE) as container:
            began = monotonic()
            on.run("stop", "--time=60", container)
            seconds, code = monotonic() - began, on.inspect(container, "{{.State.ExitCode}}")
            print(f"image: SIGTERM at once ends it after {seconds:.1f} s with exit status {code}")
            assert code in ("0", "143")
