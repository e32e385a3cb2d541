"""Of logs, metrics, traces and error reports."""

from typing import Annotated, Literal

from pydantic import SecretStr

from receiver.setting_values import read_listen_address
from receiver.settings.group import HeaderKey, SettingsGroup, checked_by


class WatchingSettings(SettingsGroup):
    """Of logs, metrics, traces and error reports."""

    log_format: Literal["text", "json"] = "text"
    """The form of the log records on standard error: `text` for people, `json` for programs."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log records that are written; `debug` has one for each inbound webhook and delivery attempt."""
    access_log: bool = False
    """Whether a log record at `info` is written for each request that is answered."""
    alert_urls: SecretStr | None = None
    """Where system events are sent besides their subscribers: URLs of Apprise, comma-separated.

    Such as `slack://...` or `mailto://...`. Needs the extra `ringback[apprise]`. None by default.
    """
    metrics_address: Annotated[str, checked_by(read_listen_address)] | None = None
    """Where metrics and health have a listener of their own: `host:port`, or the path of a Unix socket.

    Then `/metrics` is there alone. Without it, `/metrics` is on the public port.
    """
    metrics_token: HeaderKey = None
    """The token that `/metrics` requires, as `Authorization: Bearer <token>`. Without it, everybody may read them."""
    tracing: bool = False
    """Whether spans of what is done for each task are recorded and sent with OpenTelemetry.

    Its own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, ...) say where. Needs the extra `ringback[otel]`.
    """
    sentry_dsn: SecretStr | None = None
    """Where exceptions are reported: a DSN of Sentry, or of what speaks its protocol.

    Needs the extra `ringback[sentry]`. None by default.
    """

    @property
    def metrics_secret(self) -> str | None:
        """The token that `/metrics` requires; None if there is none."""
        return None if self.metrics_token is None else self.metrics_token.get_secret_value()

    @property
    def reports_to(self) -> str | None:
        """Where exceptions are reported; None if they are not."""
        return None if self.sentry_dsn is None else self.sentry_dsn.get_secret_value()
