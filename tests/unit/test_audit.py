"""The list of known vulnerabilities finds what is on it, and nothing else."""

from pathlib import Path

import pytest

from tests.audit import __main__ as audit
from tests.audit.advisories import Advisory, hits, locked_versions, read_advisories

ROOT = Path(__file__).parents[2]
LISTED = read_advisories(ROOT / "tests" / "audit" / "known_vulnerable.toml")
LOCK = "starlette==0.39.0 \\\n    --hash=sha256:0\nh11==0.16.0 ; python_version < '4' \\\n    --hash=sha256:1\n"
IN_STARLETTE = ("CVE-2024-47874", "CVE-2025-54121", "CVE-2025-62727", "CVE-2026-48710")


def test_a_locked_version_that_is_listed_is_found_and_a_mended_one_is_not() -> None:
    versions = locked_versions(LOCK)
    assert versions == {"starlette": "0.39.0", "h11": "0.16.0"}
    found = {(package, advisory.id) for package, _, advisory in hits(versions, LISTED)}
    assert found == {("starlette", name) for name in IN_STARLETTE}


@pytest.mark.parametrize(
    ("package", "last_affected", "listed"),
    [
        ("starlette", "1.0.0", "CVE-2026-48710"),
        ("idna", "3.14", "CVE-2026-45409"),
        ("orjson", "3.11.5", "CVE-2025-67221"),
    ],
)
def test_the_last_version_before_the_mended_one_is_found(package: str, last_affected: str, listed: str) -> None:
    assert [advisory.id for _, _, advisory in hits({package: last_affected}, LISTED)] == [listed]


def test_the_first_mended_version_is_no_longer_affected() -> None:
    for advisory in LISTED:
        assert list(hits({advisory.package: advisory.mended}, [advisory])) == [], advisory


def test_the_lock_file_has_no_listed_version() -> None:
    assert list(hits(locked_versions((ROOT / "deploy" / "requirements.lock").read_text()), LISTED)) == []


@pytest.mark.parametrize(
    ("answered", "reported", "status", "said"),
    [
        (0, [], 0, "did not answer"),
        (10_000, [], 0, "asked for"),
        (10_000, ["starlette 9: CVE-1"], 1, "CVE-1"),
    ],
)
def test_a_service_that_is_not_reached_is_said_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answered: int,
    reported: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(audit, "ask_service", lambda: (answered, reported))
    assert audit.main() == status
    assert said in capsys.readouterr().out


def test_a_listed_version_fails_without_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    every = Advisory("starlette", "CVE-0", ">=0", "none", "is a test")
    monkeypatch.setattr(audit, "ask_service", lambda: (0, []))
    monkeypatch.setattr(audit, "read_advisories", lambda _path: [every])
    assert audit.main() == 1
