"""Migrates a schema with Alembic. A separate module, so that a start with nothing to migrate does not load Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

import migrations
from receiver.storage.installation import SCHEMA, write_fact


def upgrade(connection: Connection) -> None:
    """Migrate the schema of a connection's database to the newest revision, within its transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    readable_from = max(_readable_from(script) for script in _revisions())
    write_fact(connection, SCHEMA, {"revision": migrations.HEAD, "readable_from": readable_from})


def known_revisions() -> set[str]:
    """Return every revision that this version of Ringback knows."""
    return {script.revision for script in _revisions()}


def pending_revisions(revision: str | None) -> list[tuple[str, str]]:
    """Return (revision, what it does) for each migration that would run on a schema of `revision`, in their order."""
    found = []
    for script in _revisions():  # the newest first
        if script.revision == revision:
            break
        found.append((script.revision, script.doc))
    return found[::-1]


def _revisions() -> list[Script]:
    return list(ScriptDirectory.from_config(_config()).walk_revisions())


def _readable_from(script: Script) -> str:
    return str(getattr(script.module, "readable_from", script.revision))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
