"""One request of a person who is signed in, as the functions of pages use it."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import urlencode

from msgspec import Struct, field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from models import Scope
from receiver.api.endpoint import EndpointHandler
from receiver.api.keys_in_use import Principal
from receiver.api.paths import segment_text
from receiver.api.services import Services
from receiver.clock import utc_now
from receiver.dashboard.answers import secured
from receiver.dashboard.asking import ApiRefusal, Body, QueryValues, Question, ask, respond
from receiver.dashboard.navigation import entries
from receiver.dashboard.sessions import drop_notice, set_notice, take_notice, theme_of
from receiver.dashboard.static_files import static_url
from receiver.dashboard.templates import render
from receiver.domain.ids import new_id
from receiver.domain.sign_in import DashboardSession
from receiver.hidden_fields import HidesFields

FORM_TOKEN = "csrf"  # noqa: S105 - the name of a field
ONCE = "once"
"""The field of a form whose value is the idempotency key of what the form does: twice the same form does it once."""
BACK = "back"
"""The field of a form that names the page to return to."""
NO_ITEMS: Mapping[str, Any] = {"data": [], "has_more": False, "next_cursor": None}
"""A page of a list that has none."""
_RANKS = (Scope.READ, Scope.WRITE, Scope.ADMIN)


class Visit(HidesFields, Struct):
    """One request: whose it is, what it asks of the API, and the page that answers it.

    `form` has the fields of a POST whose token was found right.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"form"})

    request: Request
    session: DashboardSession
    principal: Principal | None
    form: Mapping[str, str] = field(default_factory=dict)
    is_over: bool = False
    """Whether the session ends with this request."""

    @property
    def services(self) -> Services:
        """The parts of the service."""
        services: Services = self.request.app.state.services
        return services

    @property
    def now(self) -> datetime:
        """The present time, by the service's clock."""
        return utc_now()

    @property
    def query(self) -> list[tuple[str, str]]:
        """The names and values of the page's query."""
        return self.request.query_params.multi_items()

    def can(self, scope: str) -> bool:
        """Return whether the key of the session has this scope: controls that it may not use are not shown."""
        return self.principal is not None and _RANKS.index(self.principal.scope) >= _RANKS.index(Scope(scope))

    def path(self, name: str) -> str:
        """Return a parameter of the page's path."""
        return segment_text(str(self.request.path_params[name]))

    async def ask(
        self, handler: EndpointHandler, *, query: QueryValues = (), body: Body | None = None, **path: str
    ) -> Any:
        """Return the `data` of the API's answer. Raises `ApiRefusal`.

        `handler` is the function of the API's endpoint, `path` what its path has: `ask(tasks.get_task, task_id=...)`.
        """
        once = {"idempotency-key": self.form[ONCE]} if self.form.get(ONCE) else {}
        return await ask(self.request, self._known(), Question(handler, path, query, body, once))

    async def ask_page(
        self, handler: EndpointHandler, query: QueryValues, **path: str
    ) -> tuple[Mapping[str, Any], ApiRefusal | None]:
        """Return a page of a list; an empty one, and why, where the API refuses its filter. Raises `ApiRefusal`."""
        try:
            return await self.ask(handler, query=query, body=None, **path), None
        except ApiRefusal as refused:
            if refused.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
                raise
            return NO_ITEMS, refused

    async def stream(self, handler: EndpointHandler, query: QueryValues, headers: Mapping[str, str]) -> ASGIApp:
        """Return the API's answer itself, which may be a stream."""
        return await respond(self.request, self._known(), Question(handler, query=query, headers=headers))

    def url(self, path: str, query: QueryValues = ()) -> str:
        """Return the URL of a path of this service, below the prefix of a proxy if there is one."""
        pairs = list(query.items() if isinstance(query, Mapping) else query)
        prefix: str = self.request.scope.get("root_path", "")
        return prefix + path + (f"?{urlencode(pairs)}" if pairs else "")

    def here(self) -> str:
        """Return this page's path and query, without the prefix."""
        path = self.request.scope["path"].removeprefix(self.request.scope.get("root_path", "")) or "/"
        return path + (f"?{self.request.url.query}" if self.request.url.query else "")

    def page(self, template: str, *, status: int = 200, media_from: tuple[str, ...] = (), **values: Any) -> Response:
        """Return the page that a template makes of `values`."""
        notice = take_notice(self.request)
        content = render(template, **self._common(notice), **values)
        response = secured(Response(content, status, media_type="text/html"), media_from)
        if notice is not None:
            drop_notice(self.request, response)
        return response

    def redirect(self, path: str, query: QueryValues = ()) -> Response:
        """Send the browser to another page of ours."""
        return secured(RedirectResponse(self.url(path, query), HTTPStatus.SEE_OTHER))

    def done(self, text: str, *, otherwise: str, kind: str = "done") -> Response:
        """Return to the page that the form names, else to the path `otherwise`, and tell there what was done."""
        response = self.redirect(local_path(self.form.get(BACK, "")) or otherwise)
        set_notice(self.request, response, kind, text)
        return response

    def not_done(self, refused: ApiRefusal, *, otherwise: str) -> Response:
        """Return as `done` does, and tell why nothing was done. Raises `ApiRefusal` for who may change nothing."""
        if not self.can(Scope.WRITE):
            raise refused
        return self.done(refused.message, otherwise=otherwise, kind="failed")

    def _known(self) -> Principal:
        assert self.principal is not None  # noqa: S101 - pages of visitors ask nothing
        return self.principal

    def _common(self, notice: tuple[str, str] | None) -> dict[str, Any]:
        """Return what the templates of all pages use."""
        return {
            "visit": self,
            "url": self.url,
            "static": lambda name: self.url(static_url(name)),
            "theme": theme_of(self.request),
            "navigation": [each for each in entries() if self.can(each.scope)],
            "here": self.here(),
            "notice": notice,
            "form_token": self.services.sign_in.form_token(self.session),
            "once": new_id(),
            "now": self.now,
        }


def local_path(text: str) -> str | None:
    """Return a path with its query, if it leads to this service; None if it could lead elsewhere."""
    is_local = text.startswith("/") and not text.startswith("//") and text.isprintable() and "\\" not in text
    return text if is_local else None
