"""The pages of organizations: for the operator all of them, with limits to change; for others their own."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from starlette.responses import Response

from receiver.api import organizations as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.documents import size_text
from receiver.dashboard.list_query import ListQuery
from receiver.dashboard.visit import Visit
from receiver.organization_limits import LIMIT_NAMES, UNLIMITED
from receiver.storage.organizations import DEFAULT_ORGANIZATION

PATH = "/organizations"
LIMIT = "limit."
"""Fields of the form of limits begin so."""
_TITLES = {
    "webhooks": "Webhooks",
    "streams": "Open streams and long polls",
    "running_replays": "Replays that run",
    "open_tasks": "Open tasks",
    "creates_per_second": "New tasks a second",
    "deliveries_in_flight": "Attempts at deliveries under way",
    "deliveries_per_second": "Attempts at deliveries a second",
    "stored_bytes": "Stored, about",
    "idempotency_keys": "Idempotency keys in 24 hours",
}


class ShownLimit(Struct, frozen=True):
    """A limit: `most` is what is in force (None: none), `given` what was set for the organization, as a form has it."""

    name: str
    title: str
    used: float
    most: float | None
    given: str

    @property
    def share(self) -> float:
        """How much of it is used, in percent; 0 without a limit."""
        return 0.0 if self.most is None else 100.0 if not self.most else min(100.0, 100.0 * self.used / self.most)

    def text(self, value: float | None) -> str:
        """Return a number of it in words."""
        if value is None:
            return UNLIMITED
        if self.name == "stored_bytes":
            return size_text(int(value))
        return f"{value:,.15g}" if value < 1e15 else str(int(value))


async def show_organizations(visit: Visit) -> Response:
    """Show all organizations to the operator, and to others their own with its limits and use."""
    own = await visit.ask(api.get_own_organization)
    if own["name"] != DEFAULT_ORGANIZATION:
        return _one(visit, own, may_change=False)
    return await _list(visit)


async def make_organization(visit: Visit) -> Response:
    """Make an organization and show its first admin key: this answer alone has it."""
    form = visit.form
    given = {name: form[name].strip() for name in ("name", "key_name") if form.get(name, "").strip()}
    body = {**given, "owns_provider_account": "owns_provider_account" in form}
    try:
        made = await visit.ask(api.create_organization, body=body)
    except ApiRefusal as refused:
        if refused.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
            raise
        return await _list(visit, refused, body)
    return visit.page(
        "key_made.html", made=made, what=f"The first admin key of {made['name']}", back=f"{PATH}/{made['id']}"
    )


async def show_organization(visit: Visit) -> Response:
    """Show one organization to the operator."""
    found = await visit.ask(api.get_organization, organization_id=visit.path("organization_id"))
    return _one(visit, found, may_change=True)


async def change_organization(visit: Visit) -> Response:
    """Change the limits that differ in the form: a number, `unlimited`, or nothing for the default."""
    uid = visit.path("organization_id")
    present = await visit.ask(api.get_organization, organization_id=uid)
    here, body = f"{PATH}/{quote(uid, safe='')}", _changes(present, visit.form)
    if not body:
        return visit.done("The form has what is set already.", otherwise=here, kind="failed")
    try:
        await visit.ask(api.change_organization, organization_id=uid, body=body)
    except ApiRefusal as refused:
        if refused.status != HTTPStatus.BAD_REQUEST:
            raise
        return visit.done(refused.message, otherwise=here, kind="failed")
    return visit.done(f"{present['name']} is changed; it holds from now on.", otherwise=here)


async def _list(visit: Visit, fault: ApiRefusal | None = None, given: Mapping[str, Any] | None = None) -> Response:
    pairs = visit.query if fault is None else []
    found = await visit.ask(api.list_organizations, query=pairs)
    return visit.page(
        "organizations.html",
        status=fault.status if fault else 200,
        query=ListQuery(PATH, pairs, visit.url),
        organizations=[{**each, "set": _set_texts(each["set_limits"])} for each in found["data"]],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        fault=fault,
        given=given or {},
    )


def _one(visit: Visit, found: Mapping[str, Any], *, may_change: bool) -> Response:
    return visit.page(
        "organization.html", organization=found, limits=_limits(found), may_change=may_change, field=LIMIT
    )


def _limits(found: Mapping[str, Any]) -> list[ShownLimit]:
    return [
        ShownLimit(
            name,
            _TITLES.get(name, name),
            found["used"].get(name, 0),
            found["limits"][name],
            _text(found["set_limits"].get(name)),
        )
        for name in LIMIT_NAMES
    ]


def _changes(present: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of the change that a form asks for; empty if there is none."""
    was = {name: _text(present["set_limits"].get(name)) for name in LIMIT_NAMES}
    wanted = {name: form.get(LIMIT + name, was[name]).strip() for name in LIMIT_NAMES}
    limits = {name: value or None for name, value in wanted.items() if value != was[name]}
    owns = "owns_provider_account" in form
    changes: dict[str, Any] = {"limits": limits} if limits else {}
    return changes if owns == present["owns_provider_account"] else {**changes, "owns_provider_account": owns}


def _set_texts(limits: Mapping[str, Any]) -> Sequence[str]:
    return [f"{name}={_text(value)}" for name, value in limits.items()]


def _text(value: float | str | None) -> str:
    """Return a limit as it was set, as a form has it."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.15g}" if value < 1e15 else str(int(value))
