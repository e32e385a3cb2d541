"""The table "What holds whom" names tests and modules that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"^## What holds whom$(.*?)^## ", re.MULTILINE | re.DOTALL)


def rows() -> list[tuple[str, str, str]]:
    found = SECTION.search((ROOT / "receiver" / "README.md").read_text())
    assert found is not None
    lines = [line for line in found[1].splitlines() if line.startswith("| ")]
    return [
        (who, holds, shown)
        for who, holds, shown in (map(str.strip, line.strip("| ").split(" | ")) for line in lines[1:])
    ]


def names_in(path: Path) -> set[str]:
    defined = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, defined)}


def test_every_row_names_a_test_that_exists() -> None:
    missing = []
    for who, _, shown in rows():
        file, tests = "", re.findall(r"`([^`]+)`", shown)
        for name in tests:
            if name.endswith(".py"):
                file = name
            elif not file or name not in names_in(ROOT / "tests" / file):
                missing.append(f"{who}: {file} {name}")
        if not any(name.startswith("test_") for name in tests):
            missing.append(f"{who}: no test")
    assert missing == []
    assert len(rows()) >= 10


def test_every_module_that_holds_somebody_exists() -> None:
    named = {name for _, holds, _ in rows() for name in re.findall(r"`([a-z_/]+\.py)`", holds)}
    assert [name for name in sorted(named) if not (ROOT / "receiver" / name).exists()] == []
