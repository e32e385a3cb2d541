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
from receiver.storage.large_rows import MOST_PAGE_BYTES

MOST_QUERY_BYTES = 16 * 1024
MOST_PARAMETERS = 50
MOST_FILTERS = 10
"""Of the form `metadata[k]=v`: each is a condition of the query that the database is asked."""
_MEMBER = re.compile(r"([a-z_]+)\[([^\[\]]{1,200})\]")


def check_size(query: bytes) -> None:
    """Raise `BadRequest` for a query, still encoded, that is too long or has too many parameters to be read."""
    if len(query) > MOST_QUERY_BYTES:
        raise _invalid(f"the query has {len(query)} bytes; use at most {MOST_QUERY_BYTES}")
    if query.count(b"&") >= MOST_PARAMETERS:
        raise _invalid(f"the query has more than {MOST_PARAMETERS} parameters")


def read_query(parameters: QueryParams, lists: Collection[str] = ()) -> dict[str, Any]:
    """Return a query as a dictionary; `metadata[k]=v` becomes `{"metadata": {k: v}}`, empty values are left out.

    A parameter that `lists` names becomes a list: its values are separated by commas, or its name is repeated.
    Raises `BadRequest` where a name has both forms, `k=v` and `k[m]=v`, where another name is repeated, and for more
    than `MOST_FILTERS` of the second form.
    """
    query: dict[str, Any] = {}
    members: dict[str, dict[str, str]] = {}
    for name, value in parameters.multi_items():
        member = _MEMBER.fullmatch(name)
        if member is not None:
            _set(members.setdefault(member[1], {}), member[2], value, of=name)
        elif name in lists and value != "":
            query.setdefault(name, []).extend(part for each in value.split(",") if (part := each.strip()))
        elif value != "":
            _set(query, name, value, of=name)
    for name in members.keys() & query.keys():
        raise _invalid(f"give either {name}= or {name}[...]=, not both", name)
    for name, given in members.items():
        if len(given) > MOST_FILTERS:
            raise _invalid(f"give at most {MOST_FILTERS} of {name}[...]=", name)
    return query | members


def _set(values: dict[str, Any], name: str, value: str, *, of: str) -> None:
    if name in values:  # to take one of them would hide a mistake
        raise _invalid(f"{of[:80]!r} is given twice", of[:80])
    values[name] = value


def _invalid(message: str, param: str | None = None) -> BadRequest:
    return BadRequest(message, code="invalid_query_params", param=param)


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


def page(rows: Sequence[Mapping[str, Any]], limit: int, items: Iterable[Any], *, is_cut: bool = False) -> Reply:
    """Return a page of at most `limit` items; another one follows if `rows` has one row more, or if they are cut.

    A page of large items has fewer (`first_items`).
    """
    shown = first_items(items, limit)
    more = len(rows) > len(shown) or is_cut
    data = {
        "object": "list",
        "data": shown,
        "has_more": more,
        "next_cursor": write_cursor(rows[len(shown) - 1]["id"]) if more else None,
    }
    return Reply(data, "list")


def first_items(items: Iterable[Any], most: int) -> list[orjson.Fragment]:
    """Return the first `most` items as JSON, or fewer: those that have `MOST_PAGE_BYTES` together, at least one.

    An event or a task has the task's input, which may be as large as a body.
    """
    shown: list[orjson.Fragment] = []
    size = 0
    for item in islice(items, most):
        text = orjson.dumps(item)
        size += len(text)
        if shown and size > MOST_PAGE_BYTES:
            break
        shown.append(orjson.Fragment(text))
    return shown


def write_cursor(key: int) -> str:
    """Return the cursor that encodes a key: the next page begins with the row before it."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")
