"""Requests of the clients as files: written by a run of the drivers, and sent again by the suite.

A file has, for each operation, its different requests in order. What changes from run to run is replaced: the key by
`{key}`, the address by `{base}`, a subscriber's by `{subscriber}`, and the id of the task that an operation created by
`{task of OPERATION}`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.clients.recorder import Exchange
from tests.fakes.world import API_KEY

FOLDER = Path(__file__).parents[1] / "payloads/clients"

Recording = dict[str, list[dict[str, Any]]]


def write(client: str, exchanges: list[Exchange], addresses: Mapping[str, str]) -> None:
    """Write the requests of one client. `addresses` are those that change, by what stands for them."""
    recording: Recording = {}
    replaced = {API_KEY: "{key}", **{address: f"{{{name}}}" for name, address in addresses.items()}}
    for exchange in exchanges:
        request = {
            "method": exchange.method,
            "path": exchange.path,
            "headers": exchange.headers,
            "body": exchange.body,
        }
        request = _replace(request, replaced)
        requests = recording.setdefault(exchange.operation, [])
        if request not in requests:
            requests.append(request)
        task_id = _created(exchange)
        if task_id is not None:
            replaced[task_id] = f"{{task of {exchange.operation}}}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{client}.json").write_bytes(_readable(recording))


def read(client: str) -> Recording:
    """Return the requests of one client, by operation."""
    recording: Recording = orjson.loads((FOLDER / f"{client}.json").read_bytes())
    return recording


def filled(request: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return a request with the given values in place of what stands for them."""
    return _replace(request, {f"{{{name}}}": value for name, value in values.items()})


def _readable(recording: Recording) -> bytes:
    """Return JSON with a line for each request."""
    operations = [
        orjson.dumps(operation) + b": [\n" + b",\n".join(orjson.dumps(request) for request in requests) + b"\n]"
        for operation, requests in recording.items()
    ]
    return b"{" + b",\n".join(operations) + b"}\n"


def _replace(request: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    text = orjson.dumps(request).decode()
    for old, new in values.items():
        text = text.replace(old, new)
    replaced: dict[str, Any] = orjson.loads(text)
    return replaced


def _created(exchange: Exchange) -> str | None:
    data = exchange.answer.get("data") if isinstance(exchange.answer, dict) else None
    is_create = exchange.method == "POST" and exchange.path == "/api/v1/task"
    return data.get("task_id") if is_create and isinstance(data, dict) else None
