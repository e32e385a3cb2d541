"""The page of the audit log: who changed what, with what it was before and after."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from receiver.api import audit as api
from receiver.dashboard.list_query import ListQuery, canonical
from receiver.dashboard.visit import Visit

PATH = "/audit"
_PAGES = {"webhook": "/webhooks", "delivery": "/deliveries", "organization": "/organizations"}
"""Where the thing of an action is shown, by its kind."""
_MOST_FIELDS = 40
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\.000000Z")
"""A time as the API writes it, on a whole second."""


async def show_audit(visit: Visit) -> Response:
    """Show a page of entries."""
    pairs = canonical(visit.query)
    if pairs != visit.query:
        return visit.redirect(PATH, pairs)
    found, fault = await visit.ask_page(api.list_audit_entries, pairs)
    return visit.page(
        "audit.html",
        status=fault.status if fault else 200,
        query=ListQuery(PATH, pairs, visit.url),
        entries=[{**each, "changes": changes(each["before"], each["after"]), **_thing(each)} for each in found["data"]],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        fault=fault,
        chips=[pair for pair in pairs if pair[0] not in ("cursor", "limit")],
    )


def changes(before: Any, after: Any) -> Sequence[tuple[str, str, str]]:
    """Return (field, before, after) of what differs; the fields of an object stand one by one."""
    was, became = _fields(before), _fields(after)
    names = [*was, *(name for name in became if name not in was)]
    found = [(name, was.get(name, ""), became.get(name, "")) for name in names]
    return [each for each in found if each[1] != each[2]][:_MOST_FIELDS]


def _fields(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        fields: dict[str, str] = {}
        for member, inner in value.items():
            fields |= _fields(inner, f"{name}.{member}" if name else str(member))
        return fields
    if value is None:
        return {}
    return {name or "value": _text(value)}


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if not isinstance(value, str):
        return orjson.dumps(value).decode()
    return f"{found[1]} {found[2]} UTC" if (found := _TIME.fullmatch(value)) else value


def _thing(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the page of what was changed, if there is one: `page` is its path, and of what kind it is."""
    path = _PAGES.get(str(entry["action"]).partition(".")[0])
    return {"page": path if entry["target"] else None}
