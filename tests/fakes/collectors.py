"""Real servers on loopback in place of an OpenTelemetry collector (OTLP over HTTP) and of Sentry."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fakes.servers import served


@dataclass(frozen=True)
class CollectedSpan:
    """A span as the collector got it: ids in hexadecimal, `kind` as OTLP names it, `links` as (trace, span)."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    message: str
    seconds: float
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    resource: dict[str, Any] = field(repr=False)

    def is_named_by(self, traceparent: str) -> bool:
        """Return whether a `traceparent` names it, as sampled; a flag besides says that its trace's id is random."""
        begins, _, flags = traceparent.rpartition("-")
        return begins == f"00-{self.trace_id}-{self.span_id}" and int(flags, 16) & 1 == 1


class Collected:
    """What a server received: `items` are spans, or the reports of exceptions."""

    def __init__(self) -> None:
        self.url = ""
        self.items: list[Any] = []
        self.hold = asyncio.Event()
        """Requests are answered while it is set."""
        self.hold.set()
        self.asked = asyncio.Event()
        self._arrived = asyncio.Condition()

    async def add(self, items: list[Any]) -> None:
        async with self._arrived:
            self.items += items
            self._arrived.notify_all()
        self.asked.set()
        await self.hold.wait()

    async def until(self, enough: Callable[[list[Any]], Any], seconds: float = 20) -> None:
        """Wait until `enough` holds for what was received. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: enough(self.items))

    async def named(self, *names: str) -> list[CollectedSpan]:
        """Wait until a span of each name was received; return the first of each."""
        await self.until(lambda items: {*names} <= {each.name for each in items})
        return [next(each for each in self.items if each.name == name) for name in names]


@asynccontextmanager
async def otlp_collector() -> AsyncIterator[Collected]:
    """Run a collector; `url` is what `OTEL_EXPORTER_OTLP_ENDPOINT` names."""
    collected = Collected()

    async def receive(request: Request) -> Response:
        sent = ExportTraceServiceRequest.FromString(await request.body())
        await collected.add(
            [
                _span(span, _attributes(of_resource.resource.attributes))
                for of_resource in sent.resource_spans
                for scope in of_resource.scope_spans
                for span in scope.spans
            ]
        )
        return Response(b"", media_type="application/x-protobuf")

    async with served(Starlette(routes=[Route("/v1/traces", receive, methods=["POST"])])) as collected.url:
        try:
            yield collected
        finally:
            collected.hold.set()


@asynccontextmanager
async def sentry_server() -> AsyncIterator[Collected]:
    """Run what receives Sentry's envelopes; `url` is the DSN, and an item an envelope's (whole text, event)."""
    collected = Collected()

    async def receive(request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        lines = body.split(b"\n")
        await collected.add([(body.decode(), orjson.loads(lines[2]))])
        return Response(b"{}", media_type="application/json")

    async with served(Starlette(routes=[Route("/api/1/envelope/", receive, methods=["POST"])])) as base:
        collected.url = base.replace("://", "://a-key@") + "/1"
        yield collected


def _span(span: Span, resource: dict[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        failed=span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
        message=span.status.message,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_attributes(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        resource=resource,
    )


def _attributes(given: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in given}
