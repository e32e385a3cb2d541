"""What every endpoint has in common: the key, the scope, the body, and the dialect of its answers and errors."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp

from models import Scope
from receiver.api.auth import Principal
from receiver.api.dialects import Dialect, Reply, new_request_id
from receiver.api.services import Services
from receiver.errors import BadRequest, RingbackError
from receiver.inbound.body import read_body
from receiver.telemetry import get_logger

log = get_logger("api")

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request."""

    request: Request
    services: Services
    principal: Principal

    @property
    def organization_id(self) -> int:
        """The organization that calls."""
        return self.principal.organization_id

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    async def json(self, *, optional: bool = False) -> dict[str, Any]:
        """Return the body, which must be a JSON object; `optional` if it may be left out.

        Raises `BadRequest`, `TooLarge`.
        """
        request = self.request
        body = await read_body(request.scope, request.receive, self.services.settings.max_body_bytes)
        if optional and not body:
            return {}
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the body is not JSON: {error}", code="invalid_json_body") from None
        if not isinstance(value, dict):
            raise BadRequest("the body must be a JSON object")
        return value

    async def body(self, schema: type[Schema], *, optional: bool = False) -> Schema:
        """Return the body, checked. Raises `BadRequest` that names the first field that is wrong, `TooLarge`."""
        return check(schema, await self.json(optional=optional))


Handler = Callable[[Call], Awaitable[Reply | ASGIApp]]
"""Returns what is to be answered, or what answers by itself: a stream."""


def endpoint(handler: Handler, dialect: Dialect, scope: Scope) -> Callable[[Request], Awaitable[ASGIApp]]:
    """Return a Starlette endpoint: authenticated, with `scope` required, its answers and errors in `dialect`."""

    async def serve(request: Request) -> ASGIApp:
        request_id = new_request_id()
        services: Services = request.app.state.services
        try:
            principal = await services.authenticator.principal(request.headers)
            principal.require(scope)
            answer = await handler(Call(request, services, principal))
            return dialect.reply(answer, request_id) if isinstance(answer, Reply) else answer
        except RingbackError as error:
            return dialect.error(error, request_id)
        except Exception as error:
            log.error("a request failed", request_id=request_id, path=request.url.path, exc_info=error)
            return dialect.error(RingbackError("internal error; the log has more under this request id"), request_id)

    return serve


def check(schema: type[Schema], value: Any, *, code: str = "invalid_request_body", within: str | None = None) -> Schema:
    """Return `value`, which stands at the field `within`, as `schema`.

    Raises `BadRequest` that names the first field that is wrong.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        fields = [".".join(map(str, ((within,) if within else ()) + fault["loc"])) for fault in faults]
        message = "; ".join(f"{field}: {fault['msg']}" for field, fault in zip(fields, faults, strict=True))
        raise BadRequest(message.replace("Value error, ", ""), code=code, param=fields[0] or None) from None
