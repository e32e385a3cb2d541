"""Which errors an operation answers: those that it names, and those that follow from its route."""

import re
from collections.abc import Iterator

from pydantic import BaseModel

from receiver.api.description.errors import CODES, EVERYWHERE, OF_BODIES, OF_POSTS, OF_WRITES
from receiver.api.description.operations import Operation
from receiver.api.schemas import WaitQuery

_PARAMETER = re.compile(r"{(\w+)}")
_NAMED_IN_QUERIES = ("run_id", "task_id", "event_id", "webhook_id", "key_id")
"""The parameters of queries that name a resource, which may not exist."""
_FREE_NAMES = frozenset({"owner", "name", "version_id"})
"""The parameters of paths that are names of models, which are the provider's."""
_READS = ("GET", "HEAD")


def codes_of(method: str, path: str, query: type[BaseModel] | None, operation: Operation) -> frozenset[str]:
    """Return the codes of the errors of an operation that needs a key."""
    return frozenset(_codes(method, path, query, operation))


def by_status(codes: frozenset[str]) -> dict[int, list[str]]:
    """Return the codes by the HTTP status that they come with, in the order of `CODES`."""
    found: dict[int, list[str]] = {}
    for code, meaning in CODES.items():
        if code in codes:
            for status in meaning.statuses:
                found.setdefault(status, []).append(code)
    return dict(sorted(found.items()))


def _codes(method: str, path: str, query: type[BaseModel] | None, operation: Operation) -> Iterator[str]:
    yield from EVERYWHERE
    yield from operation.errors
    if method not in _READS:
        yield from OF_WRITES
    if method == "POST":
        yield from OF_POSTS
    if operation.body is not None:
        yield from OF_BODIES
    if operation.may_refuse:
        yield from ("provider_refused", "provider_unauthorized")
    for name in set(_PARAMETER.findall(path)) - _FREE_NAMES:
        yield f"{name.removesuffix('_id')}_not_found"
        if name.endswith("_id") and name != "task_id":  # any text may be the provider's id of a task
            yield f"invalid_{name}"
    if query is not None:
        yield from (f"{name.removesuffix('_id')}_not_found" for name in _NAMED_IN_QUERIES if name in query.model_fields)
        if issubclass(query, WaitQuery):
            yield "organization_rate_limited"
