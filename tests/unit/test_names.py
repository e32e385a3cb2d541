"""Names mean one thing: public classes, and the keys of log records."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = frozenset({"debug", "info", "warning", "error"})
RECORD_IDS = frozenset({"task", "tasks", "webhook", "delivery", "deliveries", "run", "replay", "event", "uid", "id"})
"""What a record must not call an id, or a number of things: the API's names are `task_id`, `webhook_id` and so on."""


def modules(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def is_class_name(name: str) -> bool:
    return name[0].isupper() and not name.isupper()


def public_names(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (name, what it stands for): a class for itself, an alias for its definition."""
    for node in module.body:
        match node:
            case ast.ClassDef(name=name) if is_class_name(name):
                yield name, f"class at line {node.lineno}"
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_class_name(name):
                yield name, ast.unparse(value)


def test_a_public_class_name_has_one_meaning() -> None:
    meanings: dict[str, dict[str, str]] = defaultdict(dict)
    for path, module in modules("receiver", "models"):
        for name, meaning in public_names(module):
            key = f"{path} {meaning}" if meaning.startswith("class") else meaning
            meanings[name].setdefault(key, str(path))
    double = {name: sorted(places.values()) for name, places in meanings.items() if len(places) > 1}
    assert double == {}


def log_calls(module: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=attr)) if attr in LEVELS:
                yield node


def test_a_log_record_has_a_short_stable_phrase_and_the_api_s_names_for_ids() -> None:
    faults = []
    for path, module in modules("receiver"):
        for call in log_calls(module):
            where = f"{path}:{call.lineno}"
            phrase = call.args[0] if call.args else None
            if isinstance(phrase, ast.Name):
                continue  # the caller's phrase
            if not isinstance(phrase, ast.Constant) or not isinstance(phrase.value, str):
                faults.append(f"{where}: the phrase is not a constant")
            elif len(phrase.value) > 60 or phrase.value.endswith(".") or phrase.value.startswith(("a ", "the ")):
                faults.append(f"{where}: {ast.unparse(phrase)}")
            faults += [f"{where}: {each.arg}=" for each in call.keywords if each.arg in RECORD_IDS]
    assert faults == []


def test_every_logger_is_named_after_its_module() -> None:
    faults = []
    for path, module in modules("receiver"):
        expected = ".".join(path.with_suffix("").parts[1:]).removesuffix(".__init__")
        for node in ast.walk(module):
            match node:
                case ast.Call(func=ast.Name(id="get_logger"), args=[ast.Constant(value=name)]) if name != expected:
                    faults.append(f"{path}: {name!r}")
    assert faults == []
