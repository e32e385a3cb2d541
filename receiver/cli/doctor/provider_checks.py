"""The provider: is it reached, does it accept the key, what is left of the account. One call that costs nothing."""

from receiver.cli.doctor.clock_checks import clock_of_provider
from receiver.cli.doctor.result import DoctorResult, bad, look, ok
from receiver.domain.keyring import KeyRing
from receiver.errors import SettingsError
from receiver.providers import Provider
from receiver.providers.registry import DEFAULT_PROVIDER, build_providers, unknown_provider
from receiver.settings import Settings
from receiver.storage.encrypted_values import ReadRows
from receiver.storage.provider_accounts import accounts_in_use
from receiver.tracking.provider_accounts import read_account


async def provider_checks(settings: Settings) -> list[DoctorResult]:
    """Return what a call about the account shows of each provider of the environment, and of the clock."""
    results = []
    try:
        providers = build_providers(settings, None)
    except SettingsError:
        return []  # which the check of the settings tells
    for name, provider in providers.items():
        if name != DEFAULT_PROVIDER and not providers.environment(name).credentials:
            await provider.aclose()  # the environment says where it is, for accounts of the database
            continue
        key = "RINGBACK_PIAPI_API_KEY" if name == DEFAULT_PROVIDER else f"RINGBACK_PROVIDER_{name.upper()}_..."
        results += await _checked(name, provider, key)
    return results


async def account_checks(settings: Settings, read: ReadRows, keyring: KeyRing) -> list[DoctorResult]:
    """Return the same of each account of the database."""
    results = []
    try:
        providers = build_providers(settings, None)
    except SettingsError:
        return []
    try:
        for row in await read(accounts_in_use(None)):
            name = f"{row['provider']}, account {row['name']}"
            if row["provider"] not in providers:
                command = f"ringback provider account remove {row['provider']} {row['uid']}"
                mend = f"put the file back that describes the provider, or remove the account: {command}"
                results.append(bad(name, unknown_provider(row["provider"]), mend))
                continue
            command = f"ringback provider account rotate {row['provider']} {row['uid']}"
            if keyring.key_of(row["credentials"]) is None:
                mend = f"put the earlier master key back, or give the credentials again: {command}"
                results.append(bad(name, "no master key here decrypts its credentials", mend))
                continue
            results += await _checked(name, providers.of_account(read_account(row, keyring)), command)
    finally:
        await providers.aclose()
    return results


async def _checked(name: str, provider: Provider, key: str) -> list[DoctorResult]:
    """Return what a call about an account shows; `key` is where its key is set."""
    try:
        seen = await provider.check_account()
    finally:
        await provider.aclose()
    if not seen.is_reached:
        network = "check this machine's network, DNS and proxy variables"
        return [bad(name, seen.fault, network if seen.is_asked else f"give the account what it lacks: {key}")]
    clock = clock_of_provider(seen.date)
    if seen.fault:
        return [bad(name, seen.fault, f"correct the key ({key}), or look at the account"), clock]
    if seen.credits is not None and seen.credits <= 0:
        return [look(name, f"accepts the key; credits left: {seen.credits:g}", "top the account up"), clock]
    credits = "" if seen.credits is None else f"; credits left: {seen.credits:g}"
    left = "" if seen.calls_left is None else f"; calls left of its rate limit: {seen.calls_left}"
    return [ok(name, f"accepts the key{credits}{left}"), clock]
