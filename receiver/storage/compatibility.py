"""Which versions of Ringback may run on which schema: the version before runs beside the next, and can come back.

Each migration names in `readable_from` the oldest version, by that version's newest revision, which may run while it is
applied: a migration that only adds names the revision before it or an earlier one. The schema itself keeps the greatest
of these (`receiver.storage.installation`, `SCHEMA`), because a version cannot know the migrations that came after it.
It takes a schema that it does not know if it is not older than that. After a migration that names none, no version
before it may run.
"""

from collections.abc import Mapping
from typing import Self

from msgspec import Struct
from sqlalchemy import Connection, inspect, text

import migrations
from receiver.errors import StartError
from receiver.storage.installation import SCHEMA, read_fact
from receiver.storage.tables import events, organizations, tasks

VERSION_TABLE = "alembic_version"
"""Where Alembic stores the revision of a database."""
REQUIRED_TABLES = (tasks.name, events.name, organizations.name, VERSION_TABLE)
"""Tables that every schema of Ringback has."""


class PresentSchema(Struct, frozen=True):
    """The schema that a database has: its revision, None for none yet, and from which one on a version may run on it.

    `readable_from` is None if the schema does not say it.
    """

    revision: str | None
    readable_from: str | None = None

    @classmethod
    def of(cls, revision: str | None, said: Mapping[str, str] | None) -> Self:
        """Return the schema of a revision, with what its fact `SCHEMA` says, unless that is said of another one."""
        return cls(revision, said.get("readable_from") if said and said.get("revision") == revision else None)

    def is_to_be_migrated(self) -> bool:
        """Return whether this version has migrations for it. Raises `StartError` if it cannot run on it at all."""
        return not self.is_newest() and not self.is_of_later_version()

    def is_newest(self) -> bool:
        """Return whether it is exactly this version's."""
        return self.revision == migrations.HEAD

    def is_of_later_version(self) -> bool:
        """Return whether a later version made it, and this one may run on it. Raises `StartError` if it may not."""
        if self.revision is None or self.is_newest():
            return False
        from receiver.storage.upgrade import known_revisions

        if self.revision in known_revisions():
            return False
        if self.readable_from is None or self.readable_from > migrations.HEAD:
            raise StartError(
                f"the database has schema {self.revision}, from a newer Ringback than this one; install that version, "
                "or restore the backup that you made before you upgraded"
            )
        return True


def present_schema(connection: Connection) -> PresentSchema:
    """Return the schema that the connection's database has."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return PresentSchema(None)
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()
    return PresentSchema.of(revision, read_fact(connection, SCHEMA))
