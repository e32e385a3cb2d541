"""What every page has in common: who sees it, the token of its forms, its errors and its cookies."""

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from receiver.asgi import KEY
from receiver.clock import utc_now
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.forms import read_form
from receiver.dashboard.sessions import end_session, find_session, keep_session
from receiver.dashboard.visit import FORM_TOKEN, Visit
from receiver.domain.sign_in import new_session
from receiver.errors import RingbackError
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, exceptions

log = get_logger("dashboard.pages")

PageFunction = Callable[[Visit], Awaitable[Response | ASGIApp]]
SIGN_IN = "/sign-in"
_NO_PAGE = "there is no page at this address"
_TITLES = {403: "Not allowed", 404: "Nothing here", 405: "Nothing here", 429: "Too many requests", 503: "Not now"}


def page(path: str, show: PageFunction) -> Route:
    """Return the route of a page that is read."""
    return Route(path, _Page(show).serve, methods=["GET"])


def action(path: str, act: PageFunction) -> Route:
    """Return the route of what a form does. The form has the token of the session."""
    return Route(path, _Page(act).serve, methods=["POST"])


def open_page(path: str, show: PageFunction, methods: Sequence[str] = ("GET",)) -> Route:
    """Return the route of a page for those who are not signed in too. Its POST has the token of a session as well."""
    return Route(path, _Page(show, is_open=True).serve, methods=list(methods))


def public_page(path: str, show: PageFunction) -> Route:
    """Return the route of a page for everyone. It has no form for who is not signed in, who gets no cookie either."""
    return Route(path, _Page(show, is_open=True, keeps_visitors=False).serve, methods=["GET"])


async def refuse_page(request: Request, error: Exception) -> Response:
    """Return the page that says that a path or a method is unknown."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    visit, fault = await _visit(request)
    return fault or _error(visit, status, _NO_PAGE)


class _Page(Struct, frozen=True):
    show: PageFunction
    is_open: bool = False
    keeps_visitors: bool = True

    async def serve(self, request: Request) -> ASGIApp:
        """Return the page; for who is not signed in, the way to the page where one does."""
        visit, fault = await _visit(request)
        response = fault or await self._shown(visit)
        if not isinstance(response, Response):
            return response
        if visit.is_over:
            end_session(request, response)
        elif visit.principal is not None or (self.is_open and self.keeps_visitors):
            keep_session(request, response, visit.session)
        return response

    async def _shown(self, visit: Visit) -> Response | ASGIApp:
        try:
            if visit.principal is None and not self.is_open:
                return visit.redirect(SIGN_IN, {"next": visit.here()} if visit.request.method == "GET" else ())
            if visit.request.method == "POST":
                form = await read_form(visit.request)
                if not visit.services.sign_in.is_form_token(visit.session, form.get(FORM_TOKEN, "")):
                    return _error(visit, 403, "this form is of another session: go back, load the page, try again")
                visit.form = form
            return await self.show(visit)
        except ApiRefusal as refused:
            return _refusal(visit, refused)
        except RingbackError as error:
            return _error(visit, error.status, error.message)
        except HTTPException as error:
            return _error(visit, error.status_code, _NO_PAGE)
        except Exception as error:
            counted(exceptions, "request").inc()
            log.error("page failed", path=visit.request.url.path, exc_info=error)
            return _error(visit, 500, "internal error: the log has the details")


async def _visit(request: Request) -> tuple[Visit, Response | None]:
    """Return the visit that a request begins, and the error page where it cannot be told who sends it."""
    try:
        session, principal = await find_session(request)
    except RingbackError as error:  # the database does not answer
        visit = Visit(request, new_session(utc_now()), None)
        return visit, _error(visit, error.status, error.message)
    if principal is not None:
        request.scope[KEY] = (principal.key_uid, principal.organization_uid)
    return Visit(request, session or new_session(utc_now()), principal), None


def _refusal(visit: Visit, refused: ApiRefusal) -> Response:
    response = _error(visit, refused.status, refused.message, refused.error)
    if refused.retry_after is not None:
        response.headers["retry-after"] = refused.retry_after
    return response


def _error(visit: Visit, status: int, message: str, error: object = None) -> Response:
    title = _TITLES.get(status, "That did not work" if status < 500 else "Something is wrong")
    return visit.page("error.html", status=status, title=title, message=message, error=error)
