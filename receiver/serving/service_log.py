"""What the log says of a service's start and stop."""

import platform
from importlib.metadata import version

from receiver.clock import monotonic
from receiver.serving.start import Installation
from receiver.settings import Settings, changed_settings
from receiver.telemetry.log import get_logger

log = get_logger("serving.service_log")

_DIGITS = 3


class ServiceLog:
    """Logs that the service has started, stops and has stopped: once, with one worker or several.

    `addresses` are those that it listens on.
    """

    def __init__(self, settings: Settings, installation: Installation, addresses: list[str], workers: int) -> None:
        self._settings = settings
        self._database_version = installation.database_version
        self._addresses = addresses
        self._workers = workers
        self._started_at = self._stopping_at = monotonic()
        self._reason = "none"

    def started(self) -> None:
        """Log the start, when requests are answered: versions, addresses, and the settings that are not default."""
        self._started_at = monotonic()
        log.info(
            "service started",
            version=version("ringback"),
            python=platform.python_version(),
            database="sqlite" if self._settings.is_sqlite else "postgresql",
            database_version=self._database_version,
            workers=self._workers,
            addresses=self._addresses,
            settings=changed_settings(self._settings),
        )

    def stopping(self, reason: str) -> None:
        """Log that the service begins to stop; `reason` is the name of a signal."""
        self._stopping_at, self._reason = monotonic(), reason
        log.info("service stopping", reason=reason, uptime_seconds=self._seconds_since(self._started_at))

    def stopped(self) -> None:
        """Log that all requests are answered and all connections closed."""
        log.info(
            "service stopped",
            reason=self._reason,
            stop_seconds=self._seconds_since(self._stopping_at),
            uptime_seconds=self._seconds_since(self._started_at),
        )

    def _seconds_since(self, moment: float) -> float:
        return round(monotonic() - moment, _DIGITS)
