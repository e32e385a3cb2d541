"""`python -m tests.deploy`: tries what is in `deploy` for real: the image, compose, systemd, Kubernetes.

It runs as root and needs podman, runc, netavark with iptables, and debootstrap; what else a part needs, it installs or
says. It takes minutes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tests.deploy import compose, image, kubernetes, systemd
from tests.deploy.podman import Podman, build_image, import_base, podman

_ON_THE_IMAGE: dict[str, Callable[[Podman], None]] = {
    "image": image.check,
    "systemd": systemd.check,
    "compose": compose.check,
}


def main() -> int:
    """Run the parts that were named, or all of them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join((*_ON_THE_IMAGE, 'kubernetes'))}; or all")
    parser.add_argument("--base", type=Path, help="a file system that debootstrap made, with python3 and python3-venv")
    options = parser.parse_args()
    parts = options.parts or [*_ON_THE_IMAGE, "kubernetes"]
    failed = 0
    if "kubernetes" in parts:
        failed += _failed("kubernetes", kubernetes.check)
    chosen = [part for part in _ON_THE_IMAGE if part in parts]
    if chosen:
        with podman() as on:
            import_base(on, options.base)
            build_image(on)
            for part in chosen:
                failed += _failed(part, lambda part=part: _ON_THE_IMAGE[part](on))  # type: ignore[misc]
    print(f"{len(parts) - failed} passed, {failed} failed")
    return int(failed > 0)


def _failed(part: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except AssertionError as error:
        print(f"{part}: FAILED: {error}", file=sys.stderr)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
