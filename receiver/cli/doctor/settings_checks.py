"""The settings: all that is wrong, and values that are right by themselves and dangerous together."""

import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from receiver.cli.doctor.result import DoctorResult, bad, look, ok
from receiver.cli.service import is_loopback
from receiver.environment import PREFIX, read_values
from receiver.errors import RingbackError, SettingsError
from receiver.private_files import OTHERS
from receiver.setting_values import ANY_PROXY, read_listen_address
from receiver.setting_values import is_loopback as listens_on_loopback
from receiver.settings import Settings, changed_settings, load_settings

_NAME = "settings"


def read_settings() -> tuple[Settings | None, list[DoctorResult]]:
    """Return the settings, None if they are wrong, with a result for each fault, of unknown names too."""
    try:
        settings = load_settings()
    except SettingsError as error:
        faults = [line.partition(": ") for line in error.message.splitlines()]
        return None, [
            bad(
                _NAME,
                f"{name}: {fault}" if fault else name,
                f"correct {name}" if name.startswith(PREFIX) else "correct it",
            )
            for name, _, fault in faults
        ]
    changed = changed_settings(settings)
    names = ", ".join(name.removeprefix(PREFIX) for name in sorted(changed))
    found = f"{len(changed)} are set and right: {names}" if changed else "all have their defaults"
    return settings, [ok(_NAME, found), *_starts(settings), *together(settings), *_open_file(Path(".env"))]


def together(settings: Settings) -> Iterator[DoctorResult]:
    """Yield what is dangerous about settings that are right by themselves."""
    yield from _about_the_public_url(settings)
    yield from _about_clients(settings)
    if settings.is_sqlite and settings.workers > 1:
        yield bad(
            _NAME,
            f"RINGBACK_WORKERS is {settings.workers}, and one process alone can serve a SQLite file",
            "set it to 1, or RINGBACK_DATABASE_URL to PostgreSQL",
        )
    if settings.allow_unreadable_secrets:
        yield look(
            _NAME,
            "RINGBACK_ALLOW_UNREADABLE_SECRETS is on: a master key that goes missing is no longer noticed at a start",
            "remove it once the webhooks have new secrets",
        )
    for name in settings.short_webhook_secrets:
        yield look(_NAME, f"{name} could be guessed", "set one of at least 16 characters here and at the provider")
    parts = urlsplit(settings.piapi_base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield bad(
            _NAME,
            "RINGBACK_PIAPI_BASE_URL is http: the provider's key and all inputs can be read on the way",
            "use https",
        )


def _starts(settings: Settings) -> Iterator[DoctorResult]:
    """Yield why a start would refuse what the settings name: providers' and the actions' files, alerts, exports."""
    from receiver.outbound.alert_channels import alert_channels
    from receiver.providers.registry import known_apis
    from receiver.runs.actions_file import read_actions
    from receiver.telemetry.exporting import check_exports

    for check in (
        lambda: known_apis(settings.providers_dir, used=settings.provider_accounts),
        lambda: read_actions(settings.actions_file, settings.providers_dir),
        lambda: alert_channels(settings),
        lambda: check_exports(tracing=settings.tracing, sentry_dsn=settings.reports_to),
    ):
        try:
            check()
        except RingbackError as error:
            yield bad(_NAME, error.message, "the service does not start with it: correct it")


def _about_the_public_url(settings: Settings) -> Iterator[DoctorResult]:
    if settings.public_url is None:
        return
    parts = urlsplit(settings.public_url)
    is_here = is_loopback(parts.hostname or "")
    if parts.scheme == "http" and not is_here:
        yield bad(
            _NAME,
            "RINGBACK_PUBLIC_URL is http: webhooks and API keys can be read and changed on the way",
            "put a proxy with TLS before the service (deploy/proxies), and use https",
        )
    if settings.allow_private_targets and not is_here:
        yield look(
            _NAME,
            "RINGBACK_ALLOW_PRIVATE_TARGETS is on at a public URL: who has a write key makes this machine call any "
            "address of its network",
            "turn it off, and name what you need in RINGBACK_ALLOWED_TARGETS",
        )
    prefix = settings.root_path
    if prefix and not parts.path.rstrip("/").endswith(prefix):
        yield look(
            _NAME,
            f"RINGBACK_ROOT_PATH is {prefix}, and RINGBACK_PUBLIC_URL does not end with it",
            f"add {prefix} to RINGBACK_PUBLIC_URL, unless a proxy adds it",
        )


def _about_clients(settings: Settings) -> Iterator[DoctorResult]:
    if settings.trusted_proxies == ANY_PROXY:
        yield look(
            _NAME,
            "RINGBACK_TRUSTED_PROXIES is *: everybody who reaches the port can claim any address, and passes the "
            "limits that are by address",
            "name the proxy's address, unless nothing but the proxy reaches the port",
        )
    is_open = settings.metrics_address is None or not listens_on_loopback(read_listen_address(settings.metrics_address))
    host = urlsplit(settings.public_url or "//localhost").hostname or ""
    is_public = settings.metrics_address is not None or not is_loopback(host)
    if is_open and is_public and settings.metrics_secret is None:
        yield look(
            _NAME,
            "/metrics may be readable by everybody, unless the proxy or the network denies it",
            "set RINGBACK_METRICS_ADDRESS to an address of this machine, or RINGBACK_METRICS_TOKEN",
        )


def _open_file(file: Path) -> Iterator[DoctorResult]:
    if file.is_file() and (mode := stat.S_IMODE(file.stat().st_mode)) & OTHERS and read_values({}, file):
        yield look(_NAME, f"{file} has mode {mode:04o}: others may read the keys in it", f"run: chmod 600 {file}")
