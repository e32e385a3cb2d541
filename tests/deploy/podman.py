"""podman with a storage of its own in a temporary folder: what it builds and runs leaves nothing behind.

There may be no registry of images to reach, so a base image is made with debootstrap, from Debian's packages.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import httpx

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/ringback-base:test"
IMAGE = "localhost/ringback:test"
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
_OF_THIS_MACHINE = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""What pip needs while an image is built here, where the machine's own network asks for it."""


class Podman:
    """Runs podman's commands on a storage in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        configuration = folder / "containers.conf"
        configuration.write_text(_CONFIGURATION)
        self.environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
        self.command = ["podman", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]

    def run(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises `AssertionError` with its output if it fails and `check` is set."""
        command = [*self.command, *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
        )
        assert not check or done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def output(self, *arguments: str) -> str:
        """Run a command to its end; return what it printed, without blanks around it."""
        return self.run(*arguments).stdout.strip()

    def build(self, dockerfile: Path, tag: str, *options: str, context: Path = ROOT) -> None:
        """Build an image in the network of this machine."""
        mounts = [f"--volume={file}:{file}:ro" for file in _OF_THIS_MACHINE if Path(file).exists()]
        self.run(
            "build",
            "--format=docker",
            "--network=host",
            *mounts,
            *options,
            "-f",
            str(dockerfile),
            "-t",
            tag,
            str(context),
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[str]:
        """Run a container in the background until the context ends; yield its id."""
        container = self.output("run", "--detach", *arguments)
        try:
            yield container
        except BaseException:
            print(self.run("logs", "--tail=40", container, check=False).stderr[-4000:], file=sys.stderr)
            raise
        finally:
            self.run("rm", "--force", "--time=5", "--volumes", container, check=False)

    def inspect(self, name: str, form: str) -> str:
        """Return a field of an image or container, in the form of a Go template."""
        return self.output("inspect", "--format", form, name)


@contextmanager
def podman() -> Iterator[Podman]:
    """Make a storage; remove it, and what runs in it, when the context ends."""
    folder = Path(mkdtemp(prefix="ringback-deploy-"))
    found = Podman(folder)
    try:
        yield found
    finally:
        for last in (("rm", "--all", "--force", "--time=1"), ("rmi", "--all", "--force")):
            with suppress(subprocess.TimeoutExpired):
                found.run(*last, check=False)
        # Layers are mounts and belong to other users: podman's own removal leaves the folder itself.
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


def import_base(on: Podman, base: Path | None) -> None:
    """Import a base image with Python: from the file system in `base`, else from one that debootstrap makes."""
    with _base_folder(base) as folder:
        packed = subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            [*on.command, "import", "-", BASE], stdin=packed.stdout, env=on.environment, check=True, capture_output=True
        )
        assert packed.wait() == 0


@contextmanager
def _base_folder(base: Path | None) -> Iterator[Path]:
    if base is not None:
        yield base
        return
    folder = mkdtemp(prefix="ringback-base-")
    packages = "--include=ca-certificates,python3,python3-venv"
    try:
        _checked(["debootstrap", "--variant=minbase", packages, "bookworm", folder])
        yield Path(folder)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)


def _checked(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def build_image(on: Podman) -> None:
    """Build the image as `deploy/Dockerfile` says, on the imported base."""
    on.build(ROOT / "deploy" / "Dockerfile", IMAGE, f"--build-arg=BASE={BASE}")


def client_of(url: str, key: str) -> httpx.Client:
    """Return a client of a service that starts: it waits 0.5, 1, 2 ... s between refused connections."""
    transport = httpx.HTTPTransport(retries=8)
    return httpx.Client(transport=transport, base_url=url, headers={"X-API-Key": key}, timeout=30)
