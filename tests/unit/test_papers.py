"""The papers are true: what they refer to exists, what exists is named, and their English is the project's."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from models import EventType
from models.states import DeliveryFormat
from receiver.api.routes import routes
from receiver.mcp.endpoint import mcp_route
from receiver.settings import Settings, secret_settings

ROOT = Path(__file__).parents[2]
FOLDERS = ("receiver", "models", "migrations", "tests", "deploy", ".github", ".ci")
CONTRACTS = ROOT / "receiver" / "api" / "CONTRACTS.md"
PATH = re.compile(r"(?<![\w./:*<>{}-])((?:[\w-]+/|\.[\w-]+/)*[\w.-]+\.(?:md|py|toml|lock|yaml))\b")
"""A file by its name or path. Not a part of a URL, and not a pattern."""
MODULE = re.compile(
    r"`((?:receiver|models|migrations|tests|api|cli|domain|events|inbound|outbound|providers|runs|sandbox|serving|storage"
    r"|tracking|workers)(?:\.\w+)+)(?:\(\))?`"
)
NOT_OURS = frozenset({"acme.toml", "conf.py", "setup.py", "httptools_impl.py", "pyproject.toml"})
AVOIDED = re.compile(
    "|".join(
        rf"\b{word.replace('-', '')}\b"
        for word in (
            *("no-body", "who-ever", "a-new", "so- many", "for- ever", "th-rice", "here-by", "h-e", "hi-m", "hi-s"),
            *("hi-mself", "her-self", "is no- UUID", "gave- up"),
        )
    ),
    re.IGNORECASE,
)
"""Words that read as metaphors or from another century. With hyphens, or this file would be the first to have them."""


def texts() -> Iterator[Path]:
    """Every text of ours: code, papers, build files; not bodies that others sent, and not the lock file."""
    endings = (".py", ".md", ".toml", ".mako", ".html", ".css", ".js", ".yaml", ".yml")
    for path in sorted(each for folder in FOLDERS for each in (ROOT / folder).rglob("*")):
        if path.is_file() and (path.suffix in endings or not path.suffix) and "__pycache__" not in path.parts:
            yield path
    yield from (
        path
        for path in sorted(ROOT.iterdir())
        if path.is_file() and (path.suffix in endings or path.name == "Makefile")
    )


@cache
def prose(path: Path) -> list[tuple[int, str]]:
    """Return (line number, line) of a paper, or of the comments and docstrings of a program."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    return [
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""'))
        for line in enumerate(token.string.splitlines(), token.start[0])
    ]


def references(pattern: re.Pattern[str]) -> Iterator[tuple[str, Path, str]]:
    for path in texts():
        for number, line in prose(path):
            for match in pattern.finditer(line):
                yield f"{path.relative_to(ROOT)}:{number}", path, match[1]


def test_every_file_that_is_named_exists() -> None:
    missing = [
        f"{where}: {name}"
        for where, path, name in references(PATH)
        if name not in NOT_OURS
        and not any((base / name).exists() for base in (ROOT, ROOT / "receiver", ROOT / "tests", path.parent))
    ]
    assert missing == []


@cache
def members(path: Path) -> dict[str, frozenset[str]]:
    """Return the names that a module has, each with the names that its class has if it is one."""
    found: dict[str, frozenset[str]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef(name=name):
                inner = {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
                inner |= {ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)}
                inner |= {ast.unparse(each.targets[0]) for each in node.body if isinstance(each, ast.Assign)}
                found[name] = frozenset(inner)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.alias(name=name):
                found.setdefault(name, frozenset())
            case ast.Name(id=name, ctx=ast.Store()):
                found.setdefault(name, frozenset())
    return found


def exists(dotted: str) -> bool:
    parts = dotted.split(".")
    for base in (ROOT, ROOT / "receiver"):
        for length in range(len(parts), 0, -1):
            place = base.joinpath(*parts[:length])
            module = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
            if not module.is_file():
                continue
            rest = parts[length:]
            if not rest:
                return True
            found = members(module)
            if rest[0] in found and (len(rest) == 1 or rest[1] in found[rest[0]]):
                return True
    return False


def test_every_module_and_name_that_is_named_exists() -> None:
    names = [(where, name) for where, _, name in references(MODULE) if name not in set(EventType)]
    assert [f"{where}: {name}" for where, name in names if not exists(name)] == []


def test_every_route_is_named_and_every_named_route_exists() -> None:
    served = set()
    for route in [*routes(), mcp_route()]:
        methods = getattr(route, "methods", None) or {"POST"}  # the inbound endpoint answers 405 by itself
        served |= {f"{method} {route.path}" for method in methods - {"HEAD"}}  # type: ignore[attr-defined]
    named = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", CONTRACTS.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == served


def test_every_event_type_and_format_is_named() -> None:
    paper = CONTRACTS.read_text(encoding="utf-8")
    assert [each for each in (*EventType, *DeliveryFormat) if f"`{each}`" not in paper] == []


def test_every_setting_is_named_and_every_named_setting_exists() -> None:
    named = set(re.findall(r"`RINGBACK_([A-Z_]+)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    files = {f"{name.removeprefix('RINGBACK_')}_FILE" for name in secret_settings()}
    accounts = {name for name in named if name.startswith("PROVIDER_")} - {"PROVIDER_RATE", "PROVIDER_TIMEOUT_SECONDS"}
    assert accounts, "the settings of other providers' accounts have a name for each provider"
    assert {name.lower() for name in named - files - accounts} - {"url"} | {"provider_accounts"} == set(
        Settings.model_fields
    )
    assert files <= named


def test_the_english_is_plain() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := AVOIDED.search(line))
    ]
    assert found == []
