"""The providers by name, built from the settings.

Nothing outside this package names a provider's class: a new provider is added here and nowhere else.
"""

from collections.abc import Callable

from receiver.providers.base import Provider
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter, SharedRateLimiter
from receiver.settings import Settings
from receiver.telemetry.metrics import begin_provider

PROVIDER_NAMES = (PiAPI.name,)
DEFAULT_PROVIDER = PiAPI.name
"""The provider where none is named: of a task created through PiAPI's paths, of an action without `provider`."""


def build_providers(settings: Settings, shared: Callable[[str], SharedRateLimiter] | None) -> dict[str, Provider]:
    """Return the adapter of each provider, by its name.

    `shared` returns the rate limiter that all processes share for the named provider; it is None where this process is
    the only one.
    """
    begin_provider(PiAPI.name)
    return {PiAPI.name: _piapi(settings, shared)}


def shared_secrets(settings: Settings) -> dict[str, str]:
    """Return the secrets for webhooks of tasks that were created outside Ringback, by provider, where they are set."""
    secret = settings.piapi_webhook_secret
    return {PiAPI.name: secret.get_secret_value()} if secret is not None else {}


def _piapi(settings: Settings, shared: Callable[[str], SharedRateLimiter] | None) -> PiAPI:
    return PiAPI(
        base_url=settings.piapi_base_url,
        api_key=settings.piapi_api_key.get_secret_value() if settings.piapi_api_key else None,
        timeout=settings.provider_timeout_seconds,
        upload_url=settings.upload_url,
        forward_timeout=settings.forward_timeout_seconds,
        trusts_503=settings.piapi_unavailable == "not_made",
        rate_limiter=RateLimiter(
            settings.provider_calls_per_second,
            shared=shared(PiAPI.name) if shared is not None else None,
            provider=PiAPI.name,
        ),
    )
