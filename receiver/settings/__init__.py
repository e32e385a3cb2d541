"""The settings of the service, each group in a module of its own."""

from receiver.settings.loading import Settings, client_settings, load_settings, secret_settings

__all__ = ["Settings", "client_settings", "load_settings", "secret_settings"]
