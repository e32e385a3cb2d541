"""The schema: migrated by Alembic, all or nothing, with a copy of the database beside it while it changes."""

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine

import migrations
from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.place import check_place
from receiver.storage.sqlite import configure
from receiver.telemetry import get_logger

log = get_logger("storage.schema")


def migrate(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this version's schema; return (the revision before, the revision now).

    On SQLite every step runs in one transaction, and an existing database is first copied to `<file>.before-<rev>`;
    the copy is removed when the new schema stands. Raises `StartError` for a database of a newer version.
    """
    path = settings.sqlite_path
    check_place(path)
    config = _config()
    newest = ScriptDirectory.from_config(config).get_current_head() or ""
    before = _revision(path) if path.exists() else None
    _refuse_newer(config, before)
    if before == newest:
        return before, newest
    copy = _copy(path, before) if before is not None else None
    engine = create_engine("sqlite://", creator=lambda: _open(path), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # SQLite's DDL is transactional as long as the driver does not commit behind our back.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    if copy is not None:
        copy.unlink()
    log.info("schema migrated", before=before, now=newest)
    return before, newest


def current_revision(settings: Settings) -> str | None:
    """Return the revision of the database's schema; None if it has none yet."""
    return _revision(settings.sqlite_path) if settings.sqlite_path.exists() else None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    configure(connection, writes=True)
    return connection


def _revision(path: Path) -> str | None:
    engine = create_engine("sqlite://", creator=lambda: _open(path), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def _refuse_newer(config: Config, revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StartError(
            f"the database's schema ({revision}) is of a newer Ringback than this one; "
            "install that version, or restore the backup that you made before it"
        )


def _copy(path: Path, revision: str) -> Path:
    copy = path.with_name(f"{path.name}.before-{revision}")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    return copy
