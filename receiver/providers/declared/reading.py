"""Reads the TOML file of a provider, and names every fault with its line."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from receiver.byte_order_marks import without_mark
from receiver.providers.declared.agreement import faults_of
from receiver.providers.declared.faults import FaultyFile, FileFault
from receiver.providers.declared.file_form import ProviderFile
from receiver.providers.declared.lines import line_of

_LARGEST = 256 * 1024
_TOML_LINE = re.compile(r" \(at line (\d+), column \d+\)| \(at end of document\)")


def read_file(path: Path) -> ProviderFile:
    """Return what a file declares, with its expressions compiled. Raises `FaultyFile`, which names every fault."""
    text = _text(path)
    data = _data(path, text)
    try:
        file = ProviderFile.model_validate(data)
    except ValidationError as error:
        raise FaultyFile([_fault(path, text, fault) for fault in error.errors(include_url=False)]) from None
    faults = list(faults_of(file))
    if file.name != path.stem:
        faults.append((("name",), f"{file.name!r} must be as the file is named: {path.stem}.toml"))
    if faults:
        raise FaultyFile(
            [FileFault(path, line_of(text, where), f"{'.'.join(where)}: {what}") for where, what in faults]
        )
    return file


def _text(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise FaultyFile([FileFault(path, None, f"has more than {_LARGEST // 1024} KB")])
        return without_mark(content).decode()
    except OSError as error:
        raise FaultyFile([FileFault(path, None, str(error.strerror))]) from None
    except UnicodeDecodeError:
        raise FaultyFile([FileFault(path, None, "not a text in UTF-8: save it in that encoding")]) from None


def _data(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = int(found[1]) if found and found[1] else len(text.splitlines()) or 1
        raise FaultyFile([FileFault(path, line, f"not valid TOML: {_TOML_LINE.sub('', str(error))}")]) from None
    except RecursionError:
        raise FaultyFile([FileFault(path, None, "is nested too deeply")]) from None


def _fault(path: Path, text: str, fault: Mapping[str, Any]) -> FileFault:
    where = tuple(str(part) for part in fault["loc"] if isinstance(part, str) and part != "[key]")
    known = set(_paths(ProviderFile))
    # A union adds the names of its members, which are no keys.
    while where and where not in known and where[:-1] in known and fault["type"] != "extra_forbidden":
        if isinstance(_model_at(where[:-1]), type) or _has_own_keys(where[:-1]):
            break
        where = where[:-1]
    name = ".".join(where) or "the file"
    if fault["type"] == "extra_forbidden":
        model = _model_at(where[:-1])
        keys = [field.alias or key for key, field in model.model_fields.items()] if model is not None else []
        similar = get_close_matches(where[-1], keys, n=1)
        message = f"unknown key {name}" + (f"; did you mean {similar[0]}?" if similar else f"; use {', '.join(keys)}")
    elif fault["type"] == "missing":
        where, message = where[:-1], f"{name} is missing"
    else:
        message = f"{name}: {fault['msg'].removeprefix('Value error, ')}"
    return FileFault(path, line_of(text, where), message)


def _model_at(path: Sequence[str]) -> type[BaseModel] | None:
    """Return the model of a table; None for what is none."""
    model: type[BaseModel] | None = ProviderFile
    for part in path:
        fields = {field.alias or key: field for key, field in model.model_fields.items()} if model else {}
        model = _model_in(fields[part].annotation) if part in fields else None
    return model


def _has_own_keys(path: Sequence[str]) -> bool:
    """Return whether who writes the file chooses the keys of a table, such as those of `query`."""
    model = _model_at(path[:-1])
    fields = {field.alias or key: field for key, field in model.model_fields.items()} if model else {}
    return path[-1] in fields and get_origin(fields[path[-1]].annotation) is dict


def _model_in(annotation: Any) -> type[BaseModel] | None:
    kinds = [annotation, *get_args(annotation)]
    return next((each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _paths(model: type[BaseModel], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, field in model.model_fields.items():
        path = (*before, field.alias or key)
        yield path
        if (inner := _model_in(field.annotation)) is not None:
            yield from _paths(inner, path)
