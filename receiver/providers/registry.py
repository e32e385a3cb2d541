"""The providers by name, built from the settings.

Nothing outside this package names a provider's class: a new provider is added here and nowhere else.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from receiver.errors import SettingsError
from receiver.providers.accounts import ProviderAccount
from receiver.providers.adapter import Adapter
from receiver.providers.api import API
from receiver.providers.base import ForwardingProvider, Provider
from receiver.providers.fal import Fal
from receiver.providers.pi import Pi
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter, SharedRateLimiter
from receiver.providers.replicate import Replicate
from receiver.settings import Settings
from receiver.telemetry.metrics import begin_provider

APIS: Mapping[str, API] = {api.name: api for api in (Fal(), Pi(), Replicate())}
"""The APIs that are described in code, by name. PiAPI has an adapter of its own."""
PROVIDER_NAMES = (PiAPI.name, *sorted(APIS))
DEFAULT_PROVIDER = PiAPI.name
"""The provider where none is named: of a task created through PiAPI's paths, of an action without `provider`."""

Shared = Callable[[str], SharedRateLimiter] | None


class Providers(dict[str, Provider]):
    """The adapter of each provider, by its name. `piapi` is PiAPI's, to which other requests are passed on too."""

    def __init__(self, piapi: ForwardingProvider, others: Mapping[str, Provider]) -> None:
        super().__init__({piapi.name: piapi, **others})
        self.piapi = piapi


def build_providers(settings: Settings, shared: Shared) -> Providers:
    """Return the adapter of each provider, with the account that the environment describes.

    `shared` returns the rate limiter that all processes share for the named provider; it is None where this process is
    the only one. Raises `SettingsError` for an account of a provider that does not exist.
    """
    begin_provider(PiAPI.name)
    accounts = _accounts(settings)
    others = {name: _adapter(api, accounts.get(name), settings, shared) for name, api in APIS.items()}
    return Providers(_piapi(settings, shared), others)


def shared_secrets(settings: Settings) -> dict[str, str]:
    """Return the secrets for webhooks of tasks that were created outside Ringback, by provider, where they are set."""
    secret = settings.piapi_webhook_secret
    return {PiAPI.name: secret.get_secret_value()} if secret is not None else {}


def unknown_provider(name: str) -> str:
    """Return what to say of a name that no provider has."""
    similar = get_close_matches(name, PROVIDER_NAMES) or PROVIDER_NAMES
    return f"no provider is named {name[:80]!r}; use {' or '.join(similar)}"


def _accounts(settings: Settings) -> dict[str, ProviderAccount]:
    found: dict[str, ProviderAccount] = {}
    faults = []
    for name, given in settings.provider_accounts.items():
        if name not in APIS:
            faults.append(f"RINGBACK_PROVIDER_{name.upper()}_...: {unknown_provider(name)}")
            continue
        values = {field: secret.get_secret_value() for field, secret in given.items()}
        base_url = values.pop("base_url", None)
        known = (*APIS[name].credential_names, *APIS[name].optional_credentials)
        unknown = sorted(values.keys() - set(known))
        wanted = ", ".join((*known, "base_url"))
        faults += [f"RINGBACK_PROVIDER_{name.upper()}_{each.upper()}: {name} takes {wanted}" for each in unknown]
        found[name] = ProviderAccount(provider=name, credentials=values, base_url=base_url)
    if faults:
        raise SettingsError("\n".join(faults))
    return found


def _adapter(api: API, account: ProviderAccount | None, settings: Settings, shared: Shared) -> Adapter:
    if account is not None:
        begin_provider(api.name)
    return Adapter(
        api,
        account or ProviderAccount(provider=api.name),
        timeout=settings.provider_timeout_seconds,
        rate_limiter=_rate_limiter(api.name, settings, shared),
    )


def _rate_limiter(name: str, settings: Settings, shared: Shared) -> RateLimiter:
    return RateLimiter(
        settings.provider_calls_per_second, shared=shared(name) if shared is not None else None, provider=name
    )


def _piapi(settings: Settings, shared: Shared) -> PiAPI:
    return PiAPI(
        base_url=settings.piapi_base_url,
        api_key=settings.piapi_api_key.get_secret_value() if settings.piapi_api_key else None,
        timeout=settings.provider_timeout_seconds,
        upload_url=settings.upload_url,
        forward_timeout=settings.forward_timeout_seconds,
        trusts_503=settings.piapi_unavailable == "not_made",
        rate_limiter=_rate_limiter(PiAPI.name, settings, shared),
    )
