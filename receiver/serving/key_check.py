"""What a start checks of its master keys: that they decrypt what is stored, and verify the webhooks of tasks under way.

Every start records the fingerprints of its keys. So a start that has all recorded ones needs to look at nothing else;
one that lacks some looks at every value, and forgets a key that nothing needs any more. The first start of this version
on an older database, which recorded none, looks at every value too.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from receiver.clock import utc_now
from receiver.domain.keyring import KeyRing
from receiver.errors import StartError
from receiver.serving.master_keys import key_file
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.encrypted_values import ReadRows, count_unreadable
from receiver.storage.key_rotation import sent_with_an_earlier_key
from receiver.storage.master_keys import record_keys, recorded_keys
from receiver.telemetry.log import get_logger

log = get_logger("serving.key_check")


async def check_master_keys(database: Database, settings: Settings, keyring: KeyRing) -> None:
    """Check the keys and record them. Raises `StartError` for values that no key decrypts.

    With `RINGBACK_ALLOW_UNREADABLE_SECRETS` that is only logged. So is a missing key by which webhooks of tasks under
    way would be verified, because polling brings their results.
    """
    recorded = await database.read(recorded_keys())
    missing = _missing(recorded, keyring)
    is_needed = False
    if missing or not recorded:
        names = ", ".join(row["fingerprint"] for row in missing)
        unreadable = await count_unreadable(database.read, keyring)
        if unreadable:
            _refuse(unreadable, names, settings)
        is_needed = unreadable > 0 or await _warn_of_tasks(database, settings, missing, recorded, keyring)
    forgotten = [] if is_needed else [row["fingerprint"] for row in missing]
    await database.writer.run(lambda tx: record_keys(tx, keyring, forgotten, utc_now()))


async def unreadable_values(read: ReadRows, keyring: KeyRing) -> tuple[int, list[str]]:
    """Return how many stored values no key decrypts, and the fingerprints of the keys that are missing.

    Only reads, as a check of what is served.
    """
    missing = _missing(await read(recorded_keys()), keyring)
    return await count_unreadable(read, keyring), [row["fingerprint"] for row in missing]


def _missing(recorded: Sequence[Mapping[str, Any]], keyring: KeyRing) -> list[Mapping[str, Any]]:
    return [row for row in recorded if row["fingerprint"] not in keyring.fingerprints]


def _refuse(unreadable: int, names: str, settings: Settings) -> None:
    which = f" (its fingerprint is {names})" if names else ""
    where = str(key_file(settings)) if settings.is_sqlite and settings.secret_key is None else "RINGBACK_SECRET_KEY"
    what = (
        f"{unreadable} secrets and headers of webhooks or credentials of accounts are encrypted with a master "
        f"key{which} that {where} lacks"
    )
    if not settings.allow_unreadable_secrets:
        raise StartError(
            f"{what}; put it back there, before the others; if it is lost, set RINGBACK_ALLOW_UNREADABLE_SECRETS=true "
            "and give these webhooks new secrets and headers, and these accounts new credentials"
        )
    advice = "give these webhooks new secrets and headers, and these accounts new credentials"
    log.warning("secrets cannot be read", reason=what, advice=advice)


async def _warn_of_tasks(
    database: Database,
    settings: Settings,
    missing: Sequence[Mapping[str, Any]],
    recorded: Sequence[Mapping[str, Any]],
    keyring: KeyRing,
) -> bool:
    """Warn if tasks under way were sent while a missing key was the newest; return whether there are any."""
    if not any(row["newest_since"] for row in missing):
        return False
    since = {row["fingerprint"]: row["newest_since"] for row in recorded}
    newest_since = since.get(keyring.newest) or utc_now()
    sent = await sent_with_an_earlier_key(database, newest_since, timedelta(seconds=settings.task_timeout_seconds))
    if sent.count:
        log.warning(
            "master key of tasks under way is missing",
            count=sent.count,
            fingerprints=[row["fingerprint"] for row in missing],
            advice="their webhooks are refused, and polling alone brings their results: put the key back before the "
            f"others until these tasks have ended (about {sent.until:%Y-%m-%d %H:%M} UTC)",
        )
    return sent.count > 0
