"""Signing in: with an API key, or with a one-time link; and signing out."""

from starlette.responses import Response

from receiver.api.keys_in_use import Principal
from receiver.clock import utc_now
from receiver.dashboard.pages import SIGN_IN
from receiver.dashboard.sessions import THEMES, set_theme
from receiver.dashboard.visit import BACK, Visit, local_path
from receiver.domain.sign_in import new_session
from receiver.errors import NotAuthenticated, RateLimited
from receiver.storage.sign_in_links import use_link
from receiver.telemetry.log import get_logger

log = get_logger("dashboard.sign_in")

_USED = "The link has expired, or was used before. Sign in with an API key, or make another one: ringback dashboard"


async def sign_in_page(visit: Visit) -> Response:
    """Show the form, or sign in with the one-time link of the query."""
    query = dict(visit.query)
    if "link" in query:
        return await _with_link(visit, query["link"])
    onward = local_path(query.get("next", "")) or "/"
    return visit.redirect(onward) if visit.principal is not None else _form(visit, onward)


async def sign_in(visit: Visit) -> Response:
    """Sign in with the key of the form. A wrong one counts as one that a program sends."""
    onward = local_path(visit.form.get("next", "")) or "/"
    key = visit.form.get("key", "").strip()
    if not key:
        return _form(visit, onward, "Enter an API key.", 400)
    try:
        principal = await visit.services.authenticator.principal_with(key, visit.request.client)
    except (NotAuthenticated, RateLimited) as error:
        response = _form(visit, onward, f"{error.message[:1].upper()}{error.message[1:]}.", error.status)
        if error.retry_after is not None:
            response.headers["retry-after"] = str(error.retry_after)
        return response
    return _begin(visit, principal, onward, "key")


async def sign_out(visit: Visit) -> Response:
    """End the session in this browser."""
    visit.is_over = True
    return visit.redirect(SIGN_IN)


async def choose_theme(visit: Visit) -> Response:
    """Keep whether pages are light or dark, and return to the page."""
    response = visit.redirect(local_path(visit.form.get(BACK, "")) or "/")
    if (theme := visit.form.get("theme", "")) in THEMES:
        set_theme(visit.request, response, theme)
    return response


async def _with_link(visit: Visit, token: str) -> Response:
    """Sign in with a link, which is used up by it. A browser that only fetches a page ahead does not use it."""
    headers = visit.request.headers
    if visit.request.method != "GET" or "prefetch" in headers.get("sec-purpose", ""):
        return Response(status_code=204)
    link = visit.services.sign_in.read_link(token, utc_now())
    if link is None:
        return _form(visit, "/", _USED, 401)
    writer = visit.services.database.writer
    if not await writer.run(lambda tx: use_link(tx, link.nonce, link.expires_at, utc_now())):
        return _form(visit, "/", _USED, 401)
    try:
        principal = await visit.services.authenticator.principal_of(link.key_uid)
    except NotAuthenticated as error:
        return _form(visit, "/", f"{error.message[:1].upper()}{error.message[1:]}.", 401)
    return _begin(visit, principal, "/", "link")


def _begin(visit: Visit, principal: Principal, onward: str, how: str) -> Response:
    visit.session = new_session(utc_now(), key_uid=principal.key_uid)
    visit.principal = principal
    log.info("signed in to the dashboard", key_id=principal.key_uid, scope=principal.scope, by=how)
    return visit.redirect(onward)


def _form(visit: Visit, onward: str, fault: str | None = None, status: int = 200) -> Response:
    return visit.page("sign_in.html", status=status, onward=onward, fault=fault)
