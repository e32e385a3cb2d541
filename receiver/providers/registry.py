"""The providers by name, built from the settings.

Nothing outside this package names a provider's class: a new provider is added here and nowhere else.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from msgspec.structs import replace

from receiver.errors import SettingsError
from receiver.providers.accounts import ProviderAccount
from receiver.providers.adapter import Adapter
from receiver.providers.api import API
from receiver.providers.base import Provider
from receiver.providers.by_account import Providers
from receiver.providers.declared.files import SHIPPED, names_in, read_apis
from receiver.providers.fal import Fal
from receiver.providers.gemini import Gemini
from receiver.providers.openai import OpenAI
from receiver.providers.pi import Pi
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter, SharedRateLimiter
from receiver.providers.replicate import Replicate
from receiver.settings import Settings
from receiver.telemetry.metrics import begin_provider

APIS: Mapping[str, API] = {api.name: api for api in (Fal(), Gemini(), OpenAI(), Pi(), Replicate())}
"""The APIs that are described in code, by name. PiAPI has an adapter of its own."""
PROVIDER_NAMES = (PiAPI.name, *sorted({*APIS, *names_in(SHIPPED)}))
"""Of all that ship. `provider_names` has those of the operator's own files too."""
DEFAULT_PROVIDER = PiAPI.name
"""The provider where none is named: of a task created through PiAPI's paths, of an action without `provider`."""

_own_names: set[str] = set()
"""The providers that the operator's files declare: a process has one set of settings."""

Shared = Callable[[str], SharedRateLimiter] | None


def build_providers(settings: Settings, shared: Shared) -> Providers:
    """Return the adapter of each provider, with the account that the environment describes.

    `shared` returns the rate limiter that all processes share for the named provider; it is None where this process is
    the only one. Raises `SettingsError` for an account of a provider that does not exist, and for faulty files.
    """
    apis = known_apis(settings.providers_dir, used=settings.provider_accounts)
    _own_names.clear()
    _own_names.update(set(apis) - set(PROVIDER_NAMES))
    environment = {PiAPI.name: _piapi_account(settings), **_accounts(settings, apis)}
    limiters = _RateLimiters(settings, shared)

    def make(account: ProviderAccount) -> Provider:
        """Return the adapter of an account. One of the database goes on with the rate limit of the one before.

        It is where the environment says that the provider is if it says nothing.
        """
        own = environment.get(account.provider)
        if account.uid or own is not None:
            begin_provider(account.provider)
        base_url = account.base_url or (own.base_url if own is not None else None)
        placed, limiter = replace(account, base_url=base_url), limiters.of(account)
        if account.provider == PiAPI.name:
            return _piapi(placed, settings, limiter)
        timeout = settings.provider_timeout_seconds
        return Adapter(apis[account.provider], placed, timeout=timeout, rate_limiter=limiter)

    return Providers(
        {name: make(environment[name]) for name in environment},
        make,
        described=apis,
        environment=environment,
        call_seconds=5 * settings.provider_timeout_seconds + 60,
    )


def known_apis(folder: Path | None, *, used: Iterable[str] = ()) -> Mapping[str, API]:
    """Return the API of each provider but PiAPI, by name: those in code, and those that files declare.

    Raises `SettingsError`. Files that ship are read when they are asked for, or now if they are in `used`.
    """
    return read_apis(APIS, folder, used=used, taken=(PiAPI.name,))


def provider_names(folder: Path | None = None) -> tuple[str, ...]:
    """Return the names of all providers, also of those that files in a folder declare, or that have been built."""
    own = _own_names | (set(names_in(folder)) - set(PROVIDER_NAMES) if folder is not None else set())
    return (*PROVIDER_NAMES, *sorted(own))


def shared_secrets(settings: Settings) -> dict[str, str]:
    """Return the secrets for webhooks of tasks that were created outside Ringback, by provider, where they are set."""
    secret = settings.piapi_webhook_secret
    return {PiAPI.name: secret.get_secret_value()} if secret is not None else {}


def unknown_provider(name: str) -> str:
    """Return what to say of a name that no provider has."""
    similar = get_close_matches(name, provider_names()) or provider_names()
    return f"no provider is named {name[:80]!r}; use {' or '.join(similar)}"


def _accounts(settings: Settings, apis: Mapping[str, API]) -> dict[str, ProviderAccount]:
    found: dict[str, ProviderAccount] = {}
    faults = []
    for name, given in settings.provider_accounts.items():
        if name not in apis:
            faults.append(f"RINGBACK_PROVIDER_{name.upper()}_...: {unknown_provider(name)}")
            continue
        values = {field: secret.get_secret_value() for field, secret in given.items()}
        base_url = values.pop("base_url", None)
        known = (*apis[name].credential_names, *apis[name].optional_credentials)
        unknown = sorted(values.keys() - set(known))
        wanted = ", ".join((*known, "base_url"))
        faults += [f"RINGBACK_PROVIDER_{name.upper()}_{each.upper()}: {name} takes {wanted}" for each in unknown]
        found[name] = ProviderAccount(provider=name, credentials=values, base_url=base_url)
    if faults:
        raise SettingsError("\n".join(faults))
    return found


def _piapi_account(settings: Settings) -> ProviderAccount:
    key = settings.piapi_api_key
    credentials = {} if key is None else {"api_key": key.get_secret_value()}
    return ProviderAccount(provider=PiAPI.name, credentials=credentials, base_url=settings.piapi_base_url)


class _RateLimiters:
    """The rate limits of accounts: each of the database has its own, which outlives its adapters."""

    def __init__(self, settings: Settings, shared: Shared) -> None:
        self._rate = settings.provider_calls_per_second
        self._shared = shared
        self._known: dict[str, tuple[float, RateLimiter]] = {}

    def of(self, account: ProviderAccount) -> RateLimiter:
        rate = account.calls_per_second or self._rate
        name = f"{account.provider}/{account.uid}" if account.uid else account.provider
        known = self._known.get(name)
        if known is None or known[0] != rate:
            shared = None if self._shared is None else self._shared(name)
            is_of_account = bool(account.uid)
            limiter = RateLimiter(rate, shared=shared, provider=account.provider, is_of_account=is_of_account)
            if known is not None and (seconds := known[1].paused_for()) > 0:
                limiter.pause(seconds)  # the provider has asked for it, whatever the rate is
            known = self._known[name] = (rate, limiter)
        return known[1]


def _piapi(account: ProviderAccount, settings: Settings, limiter: RateLimiter) -> PiAPI:
    base_url = account.base_url or settings.piapi_base_url
    return PiAPI(
        base_url=base_url,
        api_key=account.credentials.get("api_key"),
        timeout=settings.provider_timeout_seconds,
        upload_url=settings.upload_url if base_url == settings.piapi_base_url else base_url,
        forward_timeout=settings.forward_timeout_seconds,
        trusts_503=settings.piapi_unavailable == "not_made",
        rate_limiter=limiter,
        concurrency=account.concurrency,
        account=account.name if account.uid else "",
    )
