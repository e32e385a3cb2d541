"""`ringback provider check FILE...`: checks the files that describe providers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from receiver.cli.console import echo, print_json, print_marked
from receiver.cli.failure import Status

_WIDTH = 5
_FORM = "multipart/form-data"


def check_files(files: Sequence[Path], *, as_json: bool) -> None:
    """Check files, and say what would be sent and how answers are read; the exit status is 1 if one has a fault.

    The cases in `acme.cases.json` beside `acme.toml` are run; nothing is sent anywhere.
    """
    checked = [_checked(path) for path in files]
    if as_json:
        print_json({"object": "list", "data": checked})
    else:
        for each in checked:
            _print(each)
    if any(each["faults"] or any(case["faults"] for case in each["cases"]) for each in checked):
        raise typer.Exit(Status.TASK_FAILED)


def _checked(path: Path) -> dict[str, Any]:
    """Return what is to be said of a file."""
    from receiver.providers.declared.api import DeclaredAPI
    from receiver.providers.declared.cases import read_cases, run
    from receiver.providers.declared.faults import FaultyFile
    from receiver.providers.declared.reading import read_file

    told: dict[str, Any] = {"file": str(path), "name": path.stem, "faults": [], "sends": None, "cases": []}
    try:
        api = DeclaredAPI(read_file(path))
        found = read_cases(path)
    except FaultyFile as error:
        faults = [{"file": str(each.path), "line": each.line, "message": each.message} for each in error.faults]
        return told | {"faults": faults}
    if found is None:
        return told
    outcomes = [run(api, case) for case in found.cases]
    cases = [
        {"name": each.name, "sends": each.sent, "reads": each.read, "faults": list(each.faults)} for each in outcomes
    ]
    return told | {"sends": _sample(api, found.sample), "cases": cases}


def _sample(api: Any, sample: Any) -> dict[str, Any]:
    from receiver.providers.api import CannotAsk
    from receiver.providers.declared.cases import sample_request

    try:
        return sample_request(api, sample)
    except CannotAsk as error:
        return {"cannot_ask": str(error)}


def _print(told: Mapping[str, Any]) -> None:
    for fault in told["faults"]:
        place = fault["file"] if fault["line"] is None else f"{fault['file']}:{fault['line']}"
        print_marked("bad", f"{place}: {fault['message']}", width=_WIDTH)
    if told["faults"]:
        return
    if told["sends"] is None:
        print_marked("look", f"{told['file']}: is well formed; it has no recorded cases beside it", width=_WIDTH)
        return
    _print_request(told["name"], told["sends"])
    for case in told["cases"]:
        print_marked("bad" if case["faults"] else "ok", f"{case['name']}: {_words(case)}", width=_WIDTH)
        for fault in case["faults"]:
            echo(f"{'':<{_WIDTH}}{fault}")


def _print_request(name: str, sends: Mapping[str, Any]) -> None:
    if "cannot_ask" in sends:
        print_marked("bad", f"{name} cannot send its sample: {sends['cannot_ask']}", width=_WIDTH)
        return
    print_marked("ok", f"{name} sends {sends['method']} {sends['url']}", width=_WIDTH)
    lines = [f"{key}: {value}" for key, value in sends["headers"].items()]
    body = sends["body"]
    is_form = sends["headers"].get("content-type") == _FORM
    for line in (*lines, *(map(_part, body) if is_form else [_json(body)])):
        echo(f"{'':<{_WIDTH}}{line}")


def _part(part: Mapping[str, Any]) -> str:
    """Return a part of a form in a line."""
    if "text" in part:
        return f"part {part['name']}: {part['text']}"
    return f"part {part['name']}: a file {part['file_name']}, {part['content_type']}, {part['bytes']} bytes"


def _words(case: Mapping[str, Any]) -> str:
    """Return what is sent and read, in a line."""
    sent, read = case["sends"], case["reads"]
    parts: Sequence[str] = [f"{sent['method']} {sent['url']}"] if sent is not None and "method" in sent else []
    return " -> ".join((*parts, _json(read))) if read is not None else "".join(parts)


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()
