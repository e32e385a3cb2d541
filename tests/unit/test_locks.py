"""The two lock files: what developers install, and what the image installs, agree with pyproject.toml."""

import ast
import json
import re
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from cyclonedx.model.bom import Bom
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DEVELOPERS = ROOT / "deploy" / "requirements.lock"
RUNTIME = ROOT / "deploy" / "requirements-runtime.lock"
_CONTINUED = re.compile(r"\\\n\s*")


def pins(lock: Path) -> dict[str, tuple[Requirement, list[str]]]:
    """Return the requirement and the hashes of each package in a lock file, by its name."""
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in _CONTINUED.sub("", lock.read_text()).splitlines():
        text, *hashes = re.split(r"\s*--hash=", line)
        requirement = Requirement(text)
        found[canonicalize_name(requirement.name)] = requirement, hashes
    return found


def needed(requirements: list[str]) -> set[str]:
    """Return the names of the packages that these requirements need here, directly or through others."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for each in map(Requirement, requires(name) or []):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                waiting.append(each)
    return found


def test_each_package_of_the_image_has_the_version_and_hashes_that_developers_test() -> None:
    tested = pins(DEVELOPERS)
    for name, (requirement, hashes) in pins(RUNTIME).items():
        assert (str(requirement.specifier), hashes) == (str(tested[name][0].specifier), tested[name][1]), name


def test_the_image_has_what_the_service_needs_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = {name for name, (each, _) in pins(RUNTIME).items() if each.marker is None or each.marker.evaluate()}
    assert installed == needed(project["dependencies"])


def test_the_service_imports_no_package_that_only_tests_need() -> None:
    """It would not be in the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for more in project["optional-dependencies"].values() for text in more)]
    installed = needed(texts) | {"ringback"}
    sources = packages_distributions()
    faults = []
    for package in ("receiver", "models", "migrations"):
        for path in (ROOT / package).rglob("*.py"):
            for module in imported(path):
                names = {canonicalize_name(each) for each in sources.get(module, ["ringback"])}
                if not names & installed:
                    faults.append(f"{path.relative_to(ROOT)}: {module}")
    assert faults == []


def imported(path: Path) -> set[str]:
    """Return the names of the packages that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found |= {each.name.partition(".")[0] for each in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module.partition(".")[0])
    return found


@pytest.mark.parametrize("lock", [DEVELOPERS, RUNTIME], ids=lambda lock: lock.name)
def test_a_lock_has_hashes_for_each_package_and_names_no_source(lock: Path) -> None:
    assert [name for name, (_, hashes) in pins(lock).items() if not hashes] == []
    assert re.findall(r"--(?:extra-)?index-url|--find-links|://", lock.read_text()) == []


def test_the_bill_of_materials_names_what_the_image_installs_and_no_source() -> None:
    """`make sbom` writes it, on Linux: packages that only other systems need are not in the image."""
    text = (ROOT / "deploy" / "sbom.cdx.json").read_text()
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"], "serialNumber" in document) == ("CycloneDX", "1.6", False)
    named = {canonicalize_name(each["name"]): each["version"] for each in document["components"]}
    installed = {
        name: str(each.specifier).removeprefix("==")
        for name, (each, _) in pins(RUNTIME).items()
        if each.marker is None or each.marker.evaluate()
    }
    assert named == installed
    assert set(re.findall(r"\w+://[^/\"]+", text)) <= {"http://cyclonedx.org"}
    parsed: Bom = Bom.from_json(document)  # type: ignore[attr-defined]
    assert parsed.validate()
    assert len(parsed.components) == len(named)
