"""What is done once before the service starts: its settings checked, its database prepared, its keys read or made."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import ClassVar

from msgspec import Struct

from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.errors import StartError
from receiver.hidden_fields import HidesFields
from receiver.key_strength import weakness
from receiver.outbound.alert_channels import alert_channels
from receiver.runs.actions_file import read_actions
from receiver.serving.key_check import check_master_keys
from receiver.serving.master_keys import is_new, master_keys
from receiver.serving.start_wait import when_ready
from receiver.setting_values import is_loopback, read_listen_address
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.keys import ensure_admin_key
from receiver.storage.schema import check_schema, migrate
from receiver.storage.sqlite.location import lock_database
from receiver.telemetry.exporting import check_exports
from receiver.telemetry.log import get_logger

log = get_logger("serving.start")


class Installation(HidesFields, Struct, frozen=True):
    """The master keys, oldest first, the first admin key until it was used, and the version of the database."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"master_keys", "unused_admin_key"})

    master_keys: list[str]
    unused_admin_key: str | None
    database_version: str


@contextmanager
def prepared(settings: Settings, workers: int) -> Iterator[Installation]:
    """Prepare the database and the keys for `workers` processes that serve.

    A SQLite database stays locked for this process until the context ends. Raises `StartError` or `SettingsError` that
    say what to do.
    """
    if workers > 1 and settings.is_sqlite:
        raise StartError(
            "SQLite can be served by one process only; set --workers to 1, or RINGBACK_DATABASE_URL to PostgreSQL"
        )
    _warn_of_short_secrets(settings)
    _warn_of_open_metrics(settings)
    # Only checked here: each process that serves reads them again.
    read_actions(settings.actions_file)
    alert_channels(settings)
    check_exports(tracing=settings.tracing, sentry_dsn=settings.reports_to)
    with _locked(settings):
        keys = master_keys(settings)
        _warn_of_weak_master_keys(keys)
        yield Installation(keys, *asyncio.run(_prepare_database(settings, KeyRing(keys))))


async def migrate_database(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this version's schema; return the revisions before and now. Raises `StartError`.

    A server that is away is waited for (`RINGBACK_START_WAIT_SECONDS`).

    A new SQLite database gets its master key first: a start refuses a database whose key is missing, because the
    secrets in it could not be read. One that another process serves is refused.
    """
    with _locked(settings):
        if settings.is_sqlite and is_new(settings):
            master_keys(settings)
        return await when_ready(lambda: migrate(settings), seconds=settings.start_wait_seconds)


async def ensure_keys(database: Database, settings: Settings, keyring: KeyRing) -> str | None:
    """Ensure that the first organization and an admin key exist; return the first admin key while it is unused."""
    admin_key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    return await database.writer.run(lambda tx: ensure_admin_key(tx, admin_key, utc_now(), keyring))


def _warn_of_short_secrets(settings: Settings) -> None:
    for setting in settings.short_webhook_secrets:
        log.warning(
            "short webhook secret",
            setting=setting,
            advice="it could be guessed: set one of at least 16 characters here and at the provider, for example from "
            "`openssl rand -hex 32`",
        )


def _warn_of_open_metrics(settings: Settings) -> None:
    # Not refused: a pod's own address is how a scraper reaches it, and networks of pods are often closed to others.
    address = settings.metrics_address
    if address is not None and settings.metrics_secret is None and not is_loopback(read_listen_address(address)):
        log.warning(
            "metrics are open to the network",
            address=address,
            advice="everybody who reaches it reads them: set RINGBACK_METRICS_TOKEN, or let the scraper alone reach it",
        )


def _warn_of_weak_master_keys(keys: Sequence[str]) -> None:
    """Warn of those that only verify and decrypt: the newest one is refused if it is weak."""
    if weak := sum(weakness(key) is not None for key in keys[:-1]):
        log.warning(
            "weak master key kept",
            keys=weak,
            advice="who guesses it can report on tasks that were created with it: run `ringback key rotate-master`, "
            "and remove it when that says that nothing needs it",
        )


def _locked(settings: Settings) -> AbstractContextManager[object]:
    """Lock a SQLite database for this process until the context ends. Entering raises `StartError`."""
    return closing(lock_database(settings.sqlite_path)) if settings.is_sqlite else nullcontext()


async def _prepare_database(settings: Settings, keyring: KeyRing) -> tuple[str | None, str]:
    """Return the first admin key while it is unused, and the version of the database."""
    if settings.is_sqlite:
        await migrate(settings)
    else:
        await when_ready(lambda: check_schema(settings), seconds=settings.start_wait_seconds)
    async with await Database.open(settings) as database:
        await check_master_keys(database, settings, keyring)
        return await ensure_keys(database, settings, keyring), await database.version()
