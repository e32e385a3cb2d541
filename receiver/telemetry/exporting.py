"""What the process sends of itself to other services: spans and exceptions, from its start to its end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from receiver.stop_bound import TELEMETRY, StopBound
from receiver.telemetry.error_reports import begin_error_reports, check_error_reports, end_error_reports
from receiver.telemetry.log import get_logger
from receiver.telemetry.tracing import begin_tracing, check_tracing, end_tracing

log = get_logger("telemetry.exporting")

_LONGEST_FLUSH_SECONDS = 5.0
"""A service that does not answer delays a stop by no more."""


def check_exports(*, tracing: bool, sentry_dsn: str | None) -> None:
    """Raise `SettingsError`, which says what to do, if what the settings ask for cannot be sent."""
    if tracing:
        check_tracing()
    if sentry_dsn is not None:
        check_error_reports(sentry_dsn)


@asynccontextmanager
async def exporting(stop: StopBound, *, tracing: bool, sentry_dsn: str | None) -> AsyncIterator[None]:
    """Export until the context ends; then send what waits, while the stop has time for it. Raises `SettingsError`."""
    if tracing:
        begin_tracing()
    if sentry_dsn is not None:
        begin_error_reports(sentry_dsn)
    try:
        yield
    finally:
        if tracing or sentry_dsn is not None:
            await _flush(min(_LONGEST_FLUSH_SECONDS, stop.seconds_until(TELEMETRY)))


async def _flush(seconds: float) -> None:
    flushes = [_in_thread(end_tracing), _in_thread(lambda: end_error_reports(seconds))]
    _, late = await asyncio.wait(flushes, timeout=seconds)
    if late:
        log.warning("telemetry not sent before the stop", waited_seconds=round(seconds, 1))


def _in_thread(work: Callable[[], None]) -> "asyncio.Future[None]":
    """Do what blocks in a thread that does not hold the end of the process, as one of an executor would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop is closed: it has waited for long enough
                loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name="ringback-flush", daemon=True).start()
    return done
