"""Who sends a request to the dashboard: the session of its cookie, and the key that it stands for."""

import re

from starlette.requests import Request
from starlette.responses import Response

from models import Scope
from receiver.api.keys_in_use import NO_KEY, Principal
from receiver.api.services import Services
from receiver.asgi import PEER
from receiver.clock import utc_now
from receiver.domain.sign_in import IDLE, DashboardSession, new_session
from receiver.errors import NotAuthenticated
from receiver.storage.organizations import DEFAULT_ORGANIZATION, organization_by_name

SESSION_COOKIE = "ringback_session"
NOTICE_COOKIE = "ringback_notice"
THEME_COOKIE = "ringback_theme"
THEMES = ("light", "dark")
_NOTICE_SECONDS = 60
_THEME_SECONDS = 365 * 86_400
_PERSON = re.compile(r"[^\x00-\x1f\x7f]{1,200}")


async def find_session(request: Request) -> tuple[DashboardSession | None, Principal | None]:
    """Return the session of a request, None without one, and its principal, None unless it is signed in now.

    The key is looked up for each request, so that one that was revoked or has expired ends its sessions. Who has
    signed in with a key stays so where a proxy names a person too.
    """
    services: Services = request.app.state.services
    session = services.sign_in.read_session(request.cookies.get(SESSION_COOKIE, ""), utc_now())
    if session is not None and session.key_uid is not None:
        try:
            return session, await services.authenticator.principal_of(session.key_uid)
        except NotAuthenticated:
            session = None
    person = trusted_person(request)
    if person is None:
        return (session if session is not None and session.person is None else None), None
    if session is None or session.person != person:
        session = new_session(utc_now(), person=person)
    return session, await _principal_of_person(services, person)


def trusted_person(request: Request) -> str | None:
    """Return the person whom a trusted proxy names in the header of the settings; None if there is none."""
    services: Services = request.app.state.services
    header = services.settings.dashboard_trusted_header
    peer = (request.scope.get("extensions") or {}).get(PEER)
    if header is None or peer is None or not peer["is_trusted"]:
        return None
    given = request.headers.getlist(header)
    return given[0] if len(given) == 1 and _PERSON.fullmatch(given[0]) else None


async def _principal_of_person(services: Services, person: str) -> Principal:
    (organization,) = await services.database.read(organization_by_name(DEFAULT_ORGANIZATION))
    return Principal(
        organization_id=organization["id"],
        organization_uid=organization["uid"],
        scope=Scope(services.settings.dashboard_trusted_scope),
        key_id=NO_KEY,
        rate_limit=None,
        key_name=f"{person} (single sign-on)",
        expires_at=None,
    )


def keep_session(request: Request, response: Response, session: DashboardSession) -> None:
    """Set the cookie of a session, signed again if it is new or was signed some time ago."""
    services: Services = request.app.state.services
    now = utc_now()
    value = services.sign_in.sign_session(session.seen(now))
    if value != request.cookies.get(SESSION_COOKIE):
        _set(request, response, SESSION_COOKIE, value, int(IDLE.total_seconds()))


def end_session(request: Request, response: Response) -> None:
    """Remove the cookie of the session."""
    response.delete_cookie(SESSION_COOKIE, path=_path(request))


def set_notice(request: Request, response: Response, kind: str, text: str) -> None:
    """Have the next page tell something: `kind` is `done` or `failed`."""
    services: Services = request.app.state.services
    _set(request, response, NOTICE_COOKIE, services.sign_in.sign_notice(kind, text[:500]), _NOTICE_SECONDS)


def take_notice(request: Request) -> tuple[str, str] | None:
    """Return (kind, text) of what this page is to tell; None if there is nothing."""
    services: Services = request.app.state.services
    return services.sign_in.read_notice(request.cookies.get(NOTICE_COOKIE, ""))


def drop_notice(request: Request, response: Response) -> None:
    """Remove what a page has told."""
    response.delete_cookie(NOTICE_COOKIE, path=_path(request))


def theme_of(request: Request) -> str:
    """Return `light` or `dark` if the visitor has chosen; else an empty text: as the system has it."""
    theme = request.cookies.get(THEME_COOKIE, "")
    return theme if theme in THEMES else ""


def set_theme(request: Request, response: Response, theme: str) -> None:
    """Keep the visitor's choice. A script may read and set it: it is no secret."""
    _set(request, response, THEME_COOKIE, theme, _THEME_SECONDS, is_readable=True)


def _set(
    request: Request, response: Response, name: str, value: str, seconds: int, *, is_readable: bool = False
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=_path(request),
        secure=request.url.scheme == "https",
        httponly=not is_readable,
        samesite="lax",
    )


def _path(request: Request) -> str:
    return request.scope.get("root_path", "") or "/"
