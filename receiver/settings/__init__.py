"""The settings of the service, each group in a module of its own."""

from receiver.settings.loading import Settings, client_settings, given_log_format, load_settings, secret_settings
from receiver.settings.shown import changed_settings

__all__ = [
    "Settings",
    "changed_settings",
    "client_settings",
    "given_log_format",
    "load_settings",
    "secret_settings",
]
