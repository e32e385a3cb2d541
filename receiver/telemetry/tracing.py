"""Spans of what is done for a task, sent with OpenTelemetry's OTLP over HTTP, if `RINGBACK_TRACING` is set.

While it is not, nothing is imported, and `span` returns one object that does nothing. Where spans go, what is sampled
and how the service is called is OpenTelemetry's own matter: its packages read their `OTEL_*` variables.

A span is the child of a context that was kept as text (`receiver.telemetry.trace_context`) and not of what is running:
most spans of a task begin hours after its create, in another process. So none is made the current one. Their names are
stable; no attribute has an input, an output, a URL or a text of the provider's.
"""

import logging
from collections.abc import Sequence
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from receiver.clock import wall_now
from receiver.errors import RingbackError, SettingsError

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context

Kind = Literal["SERVER", "CLIENT"]

_NAME = "ringback"
_NO_NAME = "unknown_service"
"""How the SDK calls a service for which no variable has a name."""
_SERVER_ERROR = 500
_NANOSECONDS = 1_000_000_000
_LONGEST_VALUE = 256


class Span:
    """Something that is done for a task, from entering to leaving. This one records nothing."""

    __slots__ = ()

    traceparent: str | None = None
    """What names it to the next party; None if it is not recorded."""

    def set(self, **ids: str | int | None) -> None:
        """Set attributes `ringback.<name>`; None sets nothing."""

    def answered(self, status: int | None) -> None:
        """Set the status of the HTTP response; None if there was none."""

    def fail(self, kind: str, message: str | None = None) -> None:
        """Say that it failed; `kind` is one of few words, and `message` has nothing of a URL or of a body."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


NO_SPAN = Span()


class _RecordedSpan(Span):
    """A span of OpenTelemetry's."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: "trace.Span") -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}" if context.is_valid else None
        )

    def set(self, **ids: str | int | None) -> None:
        self._span.set_attributes(_attributes(ids))

    def answered(self, status: int | None) -> None:
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)

    def fail(self, kind: str, message: str | None = None) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, message))

    def end(self, at: int | None = None) -> None:
        """End it, at this time in nanoseconds or now."""
        self._span.end(at)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = error.status if isinstance(error, RingbackError) else None
        self.answered(status)
        # A request that is refused is its client's error, and no failure of the service.
        if kind is not None and (status is None or status >= _SERVER_ERROR):
            self.fail(kind.__name__)
        self._span.end()


class _Tracing:
    """Makes spans, and sends them from a thread of its own."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # Not by the SDK at the exit of the process: the stop has a bound.
        self._provider: TracerProvider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(_NAME, version(_NAME))

    def span(
        self,
        name: str,
        parent: str | None,
        kind: Kind,
        ids: dict[str, str | int | None],
        links: Sequence[str] = (),
        began: int | None = None,
    ) -> _RecordedSpan:
        from opentelemetry.trace import Link, SpanKind

        return _RecordedSpan(
            self._tracer.start_span(
                name,
                context=_context(parent),
                kind=SpanKind[kind],
                attributes=_attributes(ids),
                links=[Link(_span_context(each)) for each in links],
                start_time=began,
                record_exception=False,  # its text may have anything in it
            )
        )

    def shut_down(self) -> None:
        self._provider.shutdown()


_tracing: _Tracing | None = None


def check_tracing() -> None:
    """Raise `SettingsError`, which says what to install or correct, if spans cannot be recorded."""
    _made().shut_down()


def begin_tracing() -> None:
    """Record spans in this process from now on. Raises `SettingsError`."""
    global _tracing
    _tracing = _made()


def _made() -> _Tracing:
    logging.getLogger("opentelemetry.util.re").addFilter(_without_headers)
    try:
        return _Tracing()
    except ImportError:
        message = "RINGBACK_TRACING: needs OpenTelemetry; install it: pip install 'ringback[otel]'"
        raise SettingsError(message) from None
    except ValueError as error:
        raise SettingsError(f"RINGBACK_TRACING: an OTEL_* variable is wrong: {error}") from None


def _without_headers(record: logging.LogRecord) -> bool:
    """Hide what a record repeats of `OTEL_EXPORTER_OTLP_HEADERS`, in which there are keys."""
    record.args = tuple("***" for _ in record.args or ())
    return True


def end_tracing() -> None:
    """Record no more, and send what was recorded. Blocks while the collector does not answer."""
    global _tracing
    ended, _tracing = _tracing, None
    if ended is not None:
        ended.shut_down()


def is_tracing() -> bool:
    """Return whether spans are recorded. Who needs none otherwise asks before it collects what a span would say."""
    return _tracing is not None


def span(name: str, parent: str | None, kind: Kind, links: Sequence[str] = (), /, **ids: str | int | None) -> Span:
    """Begin a span in the trace of `parent`, or in a new one; `ids` become attributes `ringback.<name>`.

    `links` are contexts of other traces that it belongs to as well.
    """
    if _tracing is None:
        return NO_SPAN
    return _tracing.span(name, parent, kind, ids, links)


def begin_moment() -> int | None:
    """Return the present time for `record_answer`; None if nothing is recorded."""
    return None if _tracing is None else int(wall_now().timestamp() * _NANOSECONDS)


def record_answer(
    name: str, parent: str | None, links: Sequence[str], began: int, status: int, **ids: str | int | None
) -> None:
    """Record a request that was answered just now: which trace it belongs to was not known when it began."""
    if _tracing is not None:
        span = _tracing.span(name, parent, "SERVER", ids, links, began)
        span.answered(status)
        if status >= _SERVER_ERROR:
            span.fail(str(status))
        span.end()


def _attributes(ids: dict[str, str | int | None]) -> dict[str, str | int]:
    # A text from outside may be long, or have what UTF-8 cannot: then no span of its batch would be sent.
    return {
        f"ringback.{name}": value[:_LONGEST_VALUE].encode(errors="replace").decode()
        if isinstance(value, str)
        else value
        for name, value in ids.items()
        if value is not None
    }


def _resource() -> Any:
    """Return what OpenTelemetry is told of this service: what its variables say, else its name and version."""
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

    found = Resource.create()
    if str(found.attributes.get(SERVICE_NAME, _NO_NAME)).startswith(_NO_NAME):
        found = found.merge(Resource({SERVICE_NAME: _NAME}))
    return found if SERVICE_VERSION in found.attributes else found.merge(Resource({SERVICE_VERSION: version(_NAME)}))


def _context(parent: str | None) -> "Context":
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    # Not the current context: a span of another library may be in it.
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(_span_context(parent)), Context())


def _span_context(traceparent: str) -> "trace.SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
