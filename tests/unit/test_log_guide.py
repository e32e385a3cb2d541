"""The guide to the log names every record that the service writes, with its level."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "deploy" / "guides" / "logs.md"
CHOSEN = {
    "delivery attempt succeeded": {"debug"},
    "delivery attempt failed": {"debug"},
    "worker exceeded grace period; sent SIGKILL": {"error"},
}
"""Records whose phrase is not written where they are."""
_LEVELS = ("debug", "info", "warning", "error")


def written(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the phrase and the level of each record, those that are written later included (`partial`)."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called, arguments = (
            (node.args[0], node.args[1:]) if ast.unparse(node.func) == "partial" else (node.func, node.args)
        )
        is_of_log = isinstance(called, ast.Attribute) and re.match(r"(log|get_logger\(.*\))\.", ast.unparse(called))
        if is_of_log and arguments and isinstance(arguments[0], ast.Constant):
            assert isinstance(called, ast.Attribute)
            if called.attr in _LEVELS:
                yield str(arguments[0].value), called.attr


def test_the_guide_names_every_record_with_its_level() -> None:
    in_code: dict[str, set[str]] = defaultdict(set, {phrase: set(levels) for phrase, levels in CHOSEN.items()})
    for path in (ROOT / "receiver").rglob("*.py"):
        for phrase, level in written(ast.parse(path.read_text(encoding="utf-8"))):
            in_code[phrase].add(level)
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    in_guide = {phrase: set(levels.split(", ")) for phrase, levels in rows}
    assert in_guide == dict(in_code)
