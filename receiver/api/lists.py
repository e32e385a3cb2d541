"""Lists: reading their queries, and pages with a cursor, newest first."""

import base64
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson
from starlette.datastructures import QueryParams

from receiver.api.dialects import Reply
from receiver.errors import BadRequest

MOST_PAGE_BYTES = 8 * 1024 * 1024
_MEMBER = re.compile(r"([a-z_]+)\[([^\[\]]{1,200})\]")


def read_query(parameters: QueryParams, lists: Collection[str] = ()) -> dict[str, Any]:
    """Return a query as a dictionary; `metadata[k]=v` becomes `{"metadata": {k: v}}`, empty values are left out.

    A parameter that `lists` names becomes a list: its values are separated by commas, or its name is repeated.
    Raises `BadRequest` where a name has both forms, `k=v` and `k[m]=v`.
    """
    query: dict[str, Any] = {}
    members: dict[str, dict[str, str]] = {}
    for name, value in parameters.multi_items():
        member = _MEMBER.fullmatch(name)
        if member is not None:
            members.setdefault(member[1], {})[member[2]] = value
        elif name in lists and value != "":
            query.setdefault(name, []).extend(part for each in value.split(",") if (part := each.strip()))
        elif value != "":
            query[name] = value
    for name in members.keys() & query.keys():
        raise BadRequest(f"give either {name}= or {name}[...]=, not both", code="invalid_query_params", param=name)
    return query | members


def check_names(parameters: QueryParams, known: Collection[str]) -> None:
    """Raise `BadRequest` that names the first parameter which is not `known`, and those that are.

    `metadata[k]` counts as `metadata`. To ignore a name would hide a mistake: a misspelt filter returns everything.
    """
    for name in parameters:
        member = _MEMBER.fullmatch(name)
        if (plain := name if member is None else member[1]) not in known:
            names = f"known are {', '.join(known)}" if known else "this path takes none"
            raise BadRequest(
                f"{plain[:80]!r} is not a query parameter of this path; {names}",
                code="invalid_query_params",
                param=plain[:80],
            )


def read_cursor(cursor: str | None) -> int | None:
    """Return the integer key that a cursor encodes. Raises `BadRequest`."""
    if cursor is None:
        return None
    try:
        key = int(base64.urlsafe_b64decode(cursor.encode() + b"=="))
    except ValueError:
        key = 0
    if not 0 < key < 1 << 63:
        raise BadRequest(
            "is not a cursor of this list: use the next_cursor of the previous page",
            code="invalid_query_params",
            param="cursor",
        )
    return key


def page(rows: Sequence[Mapping[str, Any]], limit: int, items: Iterable[Any]) -> Reply:
    """Return a page of at most `limit` items; `rows` has one row more if another page follows.

    A page of large items has fewer (`first_items`).
    """
    shown = first_items(items, limit)
    more = len(rows) > len(shown)
    data = {
        "object": "list",
        "data": shown,
        "has_more": more,
        "next_cursor": _cursor(rows[len(shown) - 1]["id"]) if more else None,
    }
    return Reply(data, "list")


def first_items(items: Iterable[Any], most: int) -> list[orjson.Fragment]:
    """Return the first `most` items as JSON, or fewer: those that begin within the first `MOST_PAGE_BYTES`.

    An event or a task has the task's input, which may be as large as a body.
    """
    shown: list[orjson.Fragment] = []
    size = 0
    for item in islice(items, most):
        if size >= MOST_PAGE_BYTES:
            break
        text = orjson.dumps(item)
        size += len(text)
        shown.append(orjson.Fragment(text))
    return shown


def _cursor(key: int) -> str:
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")
