"""What all endpoints share: authentication, rate limits, reading the body, and the dialect of responses and errors.

A POST with an `Idempotency-Key` does its work once (`api.idempotency`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import monotonic
from typing import Any, TypeVar

import orjson
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from models import Scope
from receiver.api.dialects import Dialect, Reply, shortened
from receiver.api.idempotency import IdempotentRequest, read_key
from receiver.api.ids import read_id
from receiver.api.keys_in_use import NO_KEY, Principal
from receiver.api.limits import LimitStatus
from receiver.api.lists import check_names, check_size, read_query
from receiver.api.long_poll import Later, LongPoll
from receiver.api.paths import segment_text
from receiver.api.request_errors import broken_off, noted
from receiver.api.services import Services
from receiver.asgi import KEY, afterwards, answer_budget, give_back, hold_body, read_body
from receiver.byte_order_marks import without_mark
from receiver.domain.content_encoding import content_encodings, unpack
from receiver.domain.ids import derived_id, new_id
from receiver.domain.json_bounds import MOST_REQUEST_VALUES, has_more_values
from receiver.domain.load_shares import Load
from receiver.errors import BadRequest, OutcomeUnknown, TooLarge
from receiver.large_bodies import read_apart, read_by_size
from receiver.storage.audit import Actor
from receiver.storage.idempotency import Claim
from receiver.telemetry.request_ids import ensure_request_id
from receiver.telemetry.trace_context import TRACEPARENT, read_traceparent, set_trace_context
from receiver.telemetry.tracing import NO_SPAN, Span, span

MOST_FAULTS = 20
"""How many wrong fields an error lists."""
_READ_COST, _WRITE_COST = 1.5, 4.0
"""Of a request and what follows from it (`receiver.domain.load_shares`)."""
_BYTES_A_COST = 16 * 1024
"""This many bytes of a body cost as much as 1."""
_LONGEST_FIELD = 100
_LONGEST_FAULT = 300

Schema = TypeVar("Schema", bound=BaseModel)
Result = TypeVar("Result")
_READS = ("GET", "HEAD")
"""Methods of requests that are broken off when their key ends, because they change nothing; so are a POST that only
reads, and those that are passed on, as when their client is gone."""


class Call(Struct):
    """One authenticated request. `claim` is its claim of its idempotency key, if it has one."""

    request: Request
    services: Services
    principal: Principal
    claim: Claim | None = None
    request_id: str = ""
    limit_status: LimitStatus | None = None
    """What a long poll makes the headers of its rate limit of: it holds less than they do."""
    span: Span = NO_SPAN
    """The span of a create: what is made by it names itself here."""
    _raw: bytes | None = None
    _ids: int = 0

    @property
    def organization_id(self) -> int:
        """The integer key of the caller's organization."""
        return self.principal.organization_id

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier request with the same idempotency key did not finish: it may have done the work.

        An endpoint then checks whether what `new_id` names exists, and if so returns it as it is now; one that creates
        nothing checks whether what it changes has moved past the state that was found (`found`).
        """
        return self.claim is not None and self.claim.is_resumed

    def actor(self) -> Actor:
        """Return who sends the request, for the audit log, and count the change that is to follow.

        Raises `RateLimited` if the organization has made too many changes.
        """
        self.services.change_limit.take(self.organization_id)
        client = self.request.client
        return Actor(
            self.organization_id,
            self.principal.key_name,
            self.principal.key_id if self.principal.key_id != NO_KEY else None,
            client.host if client is not None else None,
            self.request_id,
            self.principal.key_uid or None,
        )

    async def found(self, state: str) -> str:
        """Return the state that the first request with this idempotency key found, before it began its work.

        For that request, and for one without a key, that is `state`, which is stored with the key: so a request that
        is resumed can tell whether the work was done. Raises `Unavailable` if it could not be stored.
        """
        if self.claim is None:
            return state
        if self.claim.found_state is None:
            await self.services.idempotency.bind(self.claim, state)
            self.claim = replace(self.claim, found_state=state)
        return str(self.claim.found_state)

    def new_id(self) -> str:
        """Return a UUIDv7 for the next resource that this request creates.

        With an idempotency key the first, second, ... ids are the same for every request with that key.
        """
        if self.claim is None:
            return new_id()
        number, self._ids = self._ids, self._ids + 1
        return derived_id(self.claim.resource_id, number) if number else self.claim.resource_id

    def path(self, name: str) -> str:
        """Return a path parameter."""
        return segment_text(str(self.request.path_params[name]))

    def path_id(self, name: str) -> str:
        """Return an id from the path. Raises `BadRequest` (`invalid_<name>`) for what is not a UUID."""
        return read_id(self.path(name), param=name)

    async def raw(self) -> bytes:
        """Return the body, unpacked if it has a `Content-Encoding`, and within the bound both before and after.

        Raises `TooLarge`, `EncodingUnknown`, `EncodingBroken`; `Unavailable` if the server has no room for it.
        """
        if self._raw is None:
            request = self.request
            most = self.services.settings.max_request_bytes
            encodings = content_encodings(",".join(request.headers.getlist("content-encoding")))
            owner = self.organization_id
            body = await read_body(
                request.scope, request.receive, most, setting="RINGBACK_MAX_REQUEST_BYTES", owner=owner
            )
            if encodings:
                await hold_body(request.scope, most, owner=owner)  # what it may have when it is unpacked
                packed = body
                body = await read_apart(lambda: unpack(packed, encodings, most))
                give_back(request.scope, most - len(body))
            self._raw = body
        return self._raw

    async def hold(self, size: int) -> None:
        """Take room for what a large answer is made of, until the server has the answer. Raises `Unavailable`."""
        budget = answer_budget(self.request.scope)
        if budget is not None:
            await budget.take(self.organization_id, size)

    def let_go(self) -> None:
        """Give back all that `hold` took: for a stream, which goes on."""
        budget = answer_budget(self.request.scope)
        if budget is not None:
            budget.give_back()

    async def text(self) -> bytes:
        """Return the body without a byte order mark, in UTF-8 if the mark is one of UTF-16. Raises `TooLarge`."""
        body = await self.raw()
        return await read_by_size(len(body), lambda: without_mark(body))

    async def json(self, *, optional: bool = False) -> dict[str, Any]:
        """Return the body, which must be a JSON object; {} for an empty one if it is `optional`.

        Raises `BadRequest`, `TooLarge`.
        """
        return await self.read_json(lambda value: value, optional=optional)

    async def body(self, schema: type[Schema], *, optional: bool = False) -> Schema:
        """Return the body as `schema`. Raises `BadRequest` that names the first wrong field, `TooLarge`."""
        return await self.read_json(lambda value: check(schema, value), optional=optional)

    async def read_json(self, read: Callable[[dict[str, Any]], Result], *, optional: bool = False) -> Result:
        """Return what `read` makes of `json`, and raise what it raises: for a large body in a thread."""
        body = await self.text()
        return await read_by_size(len(body), lambda: read(_json_object(body, optional=optional)))

    def query(self, schema: type[Schema], *, lists: Collection[str] = ()) -> Schema:
        """Return the query as `schema`; `lists` are the parameters with several values.

        Raises `BadRequest` (`invalid_query_params`) that names the first wrong parameter.
        """
        return check(schema, read_query(self.request.query_params, lists), code="invalid_query_params")


def _json_object(body: bytes, *, optional: bool) -> dict[str, Any]:
    if optional and not body:
        return {}
    if has_more_values(body, MOST_REQUEST_VALUES):
        raise TooLarge(
            f"the body has more than {MOST_REQUEST_VALUES} values; send fewer at a time", code="body_too_complex"
        )
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}", code="invalid_json_body") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return value


EndpointHandler = Callable[[Call], Awaitable[Reply | Later | ASGIApp]]
"""Returns the reply, what makes it later, or an ASGI application that sends the response itself: a stream."""


def endpoint(
    handler: EndpointHandler,
    dialect: Dialect,
    scope: Scope,
    *,
    query: type[BaseModel] | None = None,
    passes_on: bool = False,
    only_reads: bool = False,
    traced_as: str | None = None,
) -> Callable[[Request], Awaitable[ASGIApp]]:
    """Return a Starlette endpoint that requires a key with `scope`, and replies in `dialect`.

    `query` is the schema of the query; without one the path takes none. `passes_on`: the request is passed on to the
    provider, whose matter its query is. `only_reads`: a POST that changes nothing. Of neither an `Idempotency-Key` is
    obeyed. `traced_as` is the name of the span of a request that creates something. Every response to a valid key has
    the headers of its rate limit (`api.limits`).
    """
    names = tuple(query.model_fields) if query is not None else ()
    return RouteEndpoint(handler, dialect, scope, query, names, passes_on, only_reads, traced_as).serve


class RouteEndpoint(Struct, frozen=True):
    """What a route leads to; `endpoint` makes it, and the description of the API reads it."""

    handler: EndpointHandler
    dialect: Dialect
    scope: Scope
    query: type[BaseModel] | None
    query_names: tuple[str, ...]
    passes_on: bool
    only_reads: bool
    traced_as: str | None

    async def serve(self, request: Request, principal: Principal | None = None) -> ASGIApp:
        """Return the response to a request: of the key that it has, or of a `principal` that is known already."""
        request_id = ensure_request_id()
        headers = {"x-request-id": request_id}
        handling = self._with_errors(self._authorize(request, principal, request_id, headers), request, request_id)
        try:
            response = await handling
        except asyncio.CancelledError:
            if not request.app.state.services.streams.feed.closed:
                raise
            response = self.dialect.error(broken_off(reads=self._reads(request)), request_id)
        return _with_headers(response, headers)

    async def _authorize(
        self, request: Request, principal: Principal | None, request_id: str, headers: dict[str, str]
    ) -> ASGIApp:
        """Handle a request if its key allows it; add the headers of the key's rate limit, also if it does not."""
        services: Services = request.app.state.services
        check_size(request.scope["query_string"])
        principal = principal or await services.authenticator.principal(request.headers, request.client)
        request.scope[KEY] = (principal.key_uid, principal.organization_uid)
        limit_status = services.key_limits.take(principal.key_id, principal.rate_limit)
        headers |= limit_status.headers
        limit_status.check()
        principal.require(self.scope)
        use = services.load_shares.use(principal.organization_id, Load.REQUESTS)
        if wait := use.begin(monotonic(), cost_of(request, services.settings.max_request_bytes)):
            await asyncio.sleep(wait)
        call = Call(request, services, principal, request_id=request_id, limit_status=limit_status)
        if self.passes_on or self._reads(request):
            with services.authenticator.in_use.hold(principal):
                return await self._handle(call, request_id)
        key = read_key(request.headers) if request.method == "POST" and not self.passes_on else None
        return await (self._handle(call, request_id) if key is None else self._once(call, key, request_id))

    def _reads(self, request: Request) -> bool:
        return self.only_reads or request.method in _READS

    async def _once(self, call: Call, key: str, request_id: str) -> ASGIApp:
        # The same request with and without a byte order mark is the same request.
        request = IdempotentRequest.of(
            call.organization_id, f"POST {call.request.scope['path']}", key, await call.text()
        )

        async def work(claim: Claim) -> ASGIApp:
            call.claim = claim
            handling = self._handle(call, request_id)
            return await self._with_errors(handling, call.request, request_id, but_unknown=True)

        return await call.services.idempotency.once(request, work)

    async def _handle(self, call: Call, request_id: str) -> ASGIApp:
        if not self.passes_on and not self.dialect.ignores_unknown_queries:
            check_names(call.request.query_params, self.query_names)
        reply = await (self.handler(call) if call.request.method != "POST" else self._traced(call))
        if isinstance(reply, Later):
            if afterwards(call.request.scope) is not None and call.claim is None:
                return self._long_poll(call, reply)
            reply = await reply.reply(call)
        return self.dialect.reply(reply, request_id) if isinstance(reply, Reply) else reply

    def _long_poll(self, call: Call, later: Later) -> LongPoll:
        return LongPoll(
            later,
            self.dialect,
            call.services,
            call.principal,
            answer_budget(call.request.scope),
            call.request_id,
            call.limit_status,
            path=call.request.scope["path"],
            reads=self._reads(call.request),
        )

    async def _traced(self, call: Call) -> Reply | Later | ASGIApp:
        """Handle a request that may create tasks in the trace that the client names; a create has a span of its own."""
        given = read_traceparent(call.request.headers.getlist(TRACEPARENT))
        if self.traced_as is None:
            set_trace_context(given)
            return await self.handler(call)
        with span(self.traced_as, given, "SERVER", request_id=call.request_id) as call.span:
            set_trace_context(call.span.traceparent or given)
            reply = await self.handler(call)
            if isinstance(reply, Later) and call.span is not NO_SPAN:  # the span ends with the answer
                reply = await reply.reply(call)
            call.span.answered(reply.status if isinstance(reply, Reply) else None)
            return reply

    async def _with_errors(
        self, response: Awaitable[ASGIApp], request: Request, request_id: str, *, but_unknown: bool = False
    ) -> ASGIApp:
        """Return the response, or that of the error; `but_unknown`: an `OutcomeUnknown` is raised."""
        try:
            return await response
        except Exception as error:
            if but_unknown and isinstance(error, OutcomeUnknown):
                raise
            return self.dialect.error(noted(error, request.app.state.services, request.scope), request_id)


def cost_of(request: Request, most: int) -> float:
    """Return what a request costs, about (`receiver.domain.load_shares`); of its body `most` bytes are read."""
    length = request.headers.get("content-length", "")
    size = min(int(length), most) if length.isascii() and length.isdecimal() else 0
    return (_READ_COST if request.method in _READS else _WRITE_COST) + size / _BYTES_A_COST


def _with_headers(response: ASGIApp, headers: Mapping[str, str]) -> ASGIApp:
    """Return the response, which may be a stream, with these headers added."""
    if isinstance(response, Response):
        response.headers.update(headers)
        return response
    if isinstance(response, LongPoll):  # it has them itself
        return response

    async def stream(scope: Connection, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in headers.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await response(scope, receive, send_with_headers)

    return stream


def check(schema: type[Schema], value: Any, *, code: str = "invalid_request_body", within: str | None = None) -> Schema:
    """Return `value` as `schema`; `within` is the field that it is the value of, for the names in errors.

    Raises `BadRequest` whose message lists the first `MOST_FAULTS` wrong fields, shortened, and says how many more
    there are; its `param` is the first of them.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        listed = faults[:MOST_FAULTS]
        names = [".".join(map(str, ((within,) if within else ()) + fault["loc"])) for fault in listed]
        fields = [shortened(name, _LONGEST_FIELD) for name in names]
        start = [f"{field}: " if field else "" for field in fields]  # none if the value as a whole is wrong
        texts = [fault["msg"].removeprefix("Value error, ")[:_LONGEST_FAULT] for fault in listed]
        message = "; ".join(before + text for before, text in zip(start, texts, strict=True))
        if len(faults) > MOST_FAULTS:
            message += f"; and {len(faults) - MOST_FAULTS} more"
        raise BadRequest(message, code=code, param=fields[0] or None) from None
