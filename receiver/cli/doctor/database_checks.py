"""The database: what `ringback database check` finds, its disk, who may read its files, and its master keys."""

import shutil
import stat
from collections.abc import Iterator

from receiver.cli.console import size_text
from receiver.cli.doctor.result import DoctorOutcome, DoctorResult, bad, look, ok, skipped
from receiver.domain.keyring import KeyRing
from receiver.errors import RingbackError
from receiver.settings import Settings
from receiver.storage.maintenance import Finding, Severity, check_database
from receiver.storage.reading import ReadBeside

CANNOT_OPEN = "database"
"""The check that is bad only if the database cannot be opened at all."""
_OUTCOMES = {Severity.GOOD: DoctorOutcome.OK, Severity.WARNING: DoctorOutcome.LOOK, Severity.BAD: DoctorOutcome.BAD}
_LITTLE_BYTES = 1 << 30
_FEW_BYTES = 128 << 20


async def database_findings(settings: Settings) -> tuple[list[DoctorResult], bool]:
    """Return what a check of the database finds, and whether its schema is one that this version reads."""
    try:
        findings = await check_database(settings)
    except RingbackError as error:
        found, _, mend = error.message.partition("; ")
        return [bad(CANNOT_OPEN, found, mend or "correct RINGBACK_DATABASE_URL")], False
    results = [ok(CANNOT_OPEN, "SQLite" if settings.is_sqlite else "PostgreSQL"), *map(_result, findings)]
    return results, any(each.check == "schema" and each.severity is Severity.GOOD for each in findings)


def disk(settings: Settings) -> DoctorResult:
    """Return how much room there is for the database to grow, and to be copied before a migration."""
    name = "free disk"
    if not settings.is_sqlite:
        return skipped(name, "the server's disk cannot be seen from here", "watch it on the server's machine")
    path = settings.sqlite_path
    free, size = shutil.disk_usage(path.absolute().parent).free, path.stat().st_size
    found = f"{size_text(free)} for a database of {size_text(size)}"
    if free < _FEW_BYTES:
        return bad(name, found, "make room now: without it, writes are answered with 503")
    if free < max(_LITTLE_BYTES, size):
        return look(name, found, "make room: a migration and a backup each need as much as the database has")
    return ok(name, found)


def permissions(settings: Settings) -> Iterator[DoctorResult]:
    """Yield which files of a SQLite database others than its owner may read or change."""
    name = "file permissions"
    if not settings.is_sqlite:
        return
    from receiver.storage.sqlite.location import open_files

    files = open_files(settings.sqlite_path)
    for file in files:
        found = f"{file} has mode {stat.S_IMODE(file.stat().st_mode):04o}"
        is_key = file.name == f"{settings.sqlite_path.name}.key"
        mend = f"run: chmod 600 {file}" + (", and replace the master key: others may have read it" if is_key else "")
        yield bad(name, found, mend)
    if not files:
        yield ok(name, "the database, its key and its copies are for their owner alone")


async def master_keys(read: ReadBeside, keyring: KeyRing) -> DoctorResult:
    """Return whether all that is stored encrypted can be read with the present master keys."""
    from receiver.serving.key_check import unreadable_values

    unreadable, missing = await unreadable_values(read, keyring)
    names = f" (missing: {', '.join(missing)})" if missing else ""
    if unreadable:
        return bad(
            "master keys",
            f"{unreadable} stored secrets and headers cannot be read{names}",
            "put the missing key back before the others in RINGBACK_SECRET_KEY, or in the key's file",
        )
    if missing:
        return look(
            "master keys",
            f"all that is stored can be read; keys that were used before are gone{names}",
            "put them back if the provider's webhooks of tasks under way are refused (deploy/guides/keys.md)",
        )
    return ok("master keys", f"all that is stored can be read; the newest is {keyring.newest}")


def _result(finding: Finding) -> DoctorResult:
    mend = finding.mend or ("see deploy/guides/troubleshooting.md" if finding.severity is not Severity.GOOD else "")
    return DoctorResult(finding.check, _OUTCOMES[finding.severity], finding.found, mend)
