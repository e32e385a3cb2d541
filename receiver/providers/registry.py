"""The providers by name, built from the settings.

Nothing outside this package names a provider's class: a new provider is added here and nowhere else.
"""

from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, Mapping, ValuesView
from difflib import get_close_matches
from pathlib import Path

from receiver.errors import SettingsError
from receiver.providers.accounts import ProviderAccount
from receiver.providers.adapter import Adapter
from receiver.providers.api import API
from receiver.providers.base import ForwardingProvider, Provider
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


class Providers(Mapping[str, Provider]):
    """The adapter of each provider, by its name. `piapi` is PiAPI's, to which other requests are passed on too.

    Its names are those of all providers. An adapter is made when it is first asked for, at the start for those in
    `used`; `values` and `items` are of those that have been made.
    """

    def __init__(
        self, piapi: ForwardingProvider, others: Collection[str], used: Iterable[str], make: Callable[[str], Provider]
    ) -> None:
        self.piapi = piapi
        self._names = (piapi.name, *others)
        self._make = make
        self._made: dict[str, Provider] = {piapi.name: piapi, **{name: make(name) for name in used}}

    def __getitem__(self, name: str) -> Provider:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def values(self) -> ValuesView[Provider]:
        """Return those that have been made."""
        return dict(self._made).values()

    def items(self) -> ItemsView[str, Provider]:
        """Return those that have been made, by name."""
        return dict(self._made).items()


def build_providers(settings: Settings, shared: Shared) -> Providers:
    """Return the adapter of each provider, with the account that the environment describes.

    `shared` returns the rate limiter that all processes share for the named provider; it is None where this process is
    the only one. Raises `SettingsError` for an account of a provider that does not exist, and for faulty files.
    """
    begin_provider(PiAPI.name)
    apis = known_apis(settings.providers_dir, used=settings.provider_accounts)
    _own_names.clear()
    _own_names.update(set(apis) - set(PROVIDER_NAMES))
    accounts = _accounts(settings, apis)

    def make(name: str) -> Adapter:
        return _adapter(apis[name], accounts.get(name), settings, shared)

    return Providers(_piapi(settings, shared), tuple(apis), sorted(accounts), make)


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
