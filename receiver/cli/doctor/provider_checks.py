"""The provider: is it reached, does it accept the key, what is left of the account. One call that costs nothing."""

from receiver.cli.doctor.clock_checks import clock_of_provider
from receiver.cli.doctor.result import DoctorResult, bad, look, ok
from receiver.errors import SettingsError
from receiver.providers.registry import build_providers
from receiver.settings import Settings


async def provider_checks(settings: Settings) -> list[DoctorResult]:
    """Return what a call about the account shows of each provider, and of the clock."""
    results = []
    try:
        providers = build_providers(settings, None)
    except SettingsError:
        return []  # which the check of the settings tells
    for name, provider in providers.items():
        try:
            seen = await provider.check_account()
        finally:
            await provider.aclose()
        if not seen.is_reached:
            is_key = "RINGBACK_" in seen.fault
            mend = "get a key from the provider" if is_key else "check this machine's network, DNS and proxy variables"
            results.append(bad(name, seen.fault, mend))
            continue
        if seen.fault:
            results.append(bad(name, seen.fault, "correct the key in RINGBACK_PIAPI_API_KEY, or look at the account"))
        elif seen.credits is not None and seen.credits <= 0:
            results.append(look(name, f"accepts the key; credits left: {seen.credits:g}", "top the account up"))
        else:
            credits = "" if seen.credits is None else f"; credits left: {seen.credits:g}"
            left = "" if seen.calls_left is None else f"; calls left of its rate limit: {seen.calls_left}"
            results.append(ok(name, f"accepts the key{credits}{left}"))
        results.append(clock_of_provider(seen.date))
    return results
