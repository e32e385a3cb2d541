"""Looks for known vulnerabilities of the packages in the lock file: the last step of `make check`.

`pip-audit` asks the vulnerability service of the package index. Where that cannot be reached, which is no fault of the
code, the step says so and does not fail; what it then knows is the list `known_vulnerable.toml` alone.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.audit.advisories import Advisory, hits, locked_versions, read_advisories

_ROOT = Path(__file__).resolve().parents[2]
_LOCK = _ROOT / "deploy" / "requirements.lock"
_LIST = Path(__file__).with_name("known_vulnerable.toml")
_SECONDS = 150
_COMMAND = ("-m", "pip_audit", "--requirement", str(_LOCK), "--require-hashes", "--no-deps", "--disable-pip")
_OPTIONS = ("--format", "json", "--progress-spinner", "off", "--timeout", "5")


def main() -> int:
    versions, advisories = locked_versions(_LOCK.read_text()), read_advisories(_LIST)
    found = [*map(_line, hits(versions, advisories))]
    answered, reported = ask_service()
    if answered:
        print(f"pip-audit: asked for {answered} of {len(versions)} packages")
    if answered < len(versions):
        print(
            f"The vulnerability service did not answer for {len(versions) - answered} of {len(versions)} packages: "
            f"for them only the {len(advisories)} advisories in tests/audit/{_LIST.name} were looked at"
        )
    for line in (lines := sorted({*found, *reported})):
        print(line)
    return 1 if lines else 0


def ask_service() -> tuple[int, list[str]]:
    """Return for how many packages the service answered, and a line for each vulnerability."""
    try:
        done = subprocess.run(
            [sys.executable, *_COMMAND, *_OPTIONS], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return 0, []
    answered = [package for package in packages if "skip_reason" not in package]
    return len(answered), [
        f"{package['name']} {package['version']}: {fault['id']} {' '.join(fault.get('aliases', ()))}".strip()
        for package in answered
        for fault in package["vulns"]
    ]


def _line(hit: tuple[str, str, Advisory]) -> str:
    name, version, advisory = hit
    return f"{name} {version}: {advisory.id} ({advisory.what}); mended in {advisory.mended}"


if __name__ == "__main__":
    sys.exit(main())
