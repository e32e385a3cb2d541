"""The page of API keys: what there are, making one, which is shown once, and revoking one."""

from collections.abc import Mapping
from http import HTTPStatus
from math import isfinite
from typing import Any

from starlette.responses import Response

from models import Scope
from receiver.api import keys as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.list_query import ListQuery
from receiver.dashboard.pages import SIGN_IN
from receiver.dashboard.sessions import set_notice
from receiver.dashboard.times import parse
from receiver.dashboard.visit import Visit
from receiver.storage.keys import SETTING

PATH = "/keys"
_FIELDS = ("name", "scope", "expires_at", "rate_limit")


async def show_keys(visit: Visit) -> Response:
    """Show a page of keys."""
    return await _list(visit)


async def make_key(visit: Visit) -> Response:
    """Make a key and show it: this answer alone has it."""
    given = {name: visit.form[name].strip() for name in _FIELDS if visit.form.get(name, "").strip()}
    try:
        key = await visit.ask(api.create_key, body={**given, **_rate(given)})
    except ApiRefusal as refused:
        if refused.status != HTTPStatus.BAD_REQUEST:
            raise
        return await _list(visit, refused, given)
    return visit.page("key_made.html", made=key, what=f"The key {key['name']}", back=PATH)


async def ask_to_revoke(visit: Visit) -> Response:
    """Show what revoking a key would end, and the button that does it."""
    key = await visit.ask(api.get_key, key_id=visit.path("key_id"))
    return visit.page(
        "key_revoke.html", key=key, is_own=_is_own(visit, key["id"]), is_of_setting=key["name"] == SETTING
    )


async def revoke_key(visit: Visit) -> Response:
    """Revoke a key. With the key of this session the session ends too."""
    uid = visit.path("key_id")
    key = await visit.ask(api.get_key, key_id=uid)
    await visit.ask(api.revoke_key, key_id=uid)
    if not _is_own(visit, key["id"]):
        return visit.done(f"The key {key['name']} is revoked.", otherwise=PATH)
    visit.is_over = True
    response = visit.redirect(SIGN_IN)
    set_notice(visit.request, response, "done", "The key that you were signed in with is revoked.")
    return response


async def _list(visit: Visit, fault: ApiRefusal | None = None, given: Mapping[str, str] | None = None) -> Response:
    pairs = visit.query if fault is None else []
    found = await visit.ask(api.list_keys, query=pairs)
    return visit.page(
        "keys.html",
        status=fault.status if fault else 200,
        query=ListQuery(PATH, pairs, visit.url),
        keys=[{**key, "is_own": _is_own(visit, key["id"]), "is_over": _is_over(visit, key)} for key in found["data"]],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        fault=fault,
        given=given or {},
        scopes=list(Scope),
    )


def _is_own(visit: Visit, uid: str) -> bool:
    return visit.principal is not None and visit.principal.key_uid == uid


def _is_over(visit: Visit, key: Mapping[str, Any]) -> bool:
    return key["expires_at"] is not None and parse(key["expires_at"]) <= visit.now


def _rate(given: Mapping[str, str]) -> dict[str, float]:
    """Return the rate as a number; what is none stays a text, which the API refuses by name."""
    try:
        rate = float(given["rate_limit"])
    except (KeyError, ValueError):
        return {}
    return {"rate_limit": rate} if isfinite(rate) else {}
