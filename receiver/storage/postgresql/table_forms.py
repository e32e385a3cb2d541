"""The form of a table, read from the catalogue to give it to another one: keys, indexes, rights, who refers to it."""

from typing import Any

from msgspec import Struct
from sqlalchemy import TextClause, text

from receiver.storage.postgresql.core_connection import CoreConnection

# Those with a parent belong to a partition, and come and go with it.
_CONSTRAINTS = text(
    "SELECT conname AS name, contype::text AS kind, pg_get_constraintdef(oid) AS definition, "
    "ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY(conkey)) AS columns "
    "FROM pg_constraint WHERE conrelid = to_regclass(:name) AND contype IN ('p', 'u', 'f') AND conparentid = 0 "
    "ORDER BY conname"
)
_REFERRING = text(
    "SELECT conrelid::regclass::text AS table, conname AS name, pg_get_constraintdef(oid) AS definition "
    "FROM pg_constraint WHERE confrelid = to_regclass(:name) AND contype = 'f' AND conparentid = 0 ORDER BY conname"
)
_INDEXES = text(
    "SELECT pg_class.relname AS name, pg_get_indexdef(indexrelid) AS definition, "
    "EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u')) AS is_of_constraint "
    "FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = to_regclass(:name) ORDER BY relname"
)
_GRANTS = text(
    "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role, privilege_type AS privilege "
    "FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = to_regclass(:name) AND grantee <> relowner"
)


class TableForm(Struct, frozen=True):
    """What a table has besides its columns; the methods return statements, for a table that has its name by then."""

    table: str
    constraints: list[Any]
    indexes: list[Any]
    referring: list[Any]
    grants: list[Any]

    def without_referring(self) -> list[str]:
        """Return the statements that drop the foreign keys which refer to the table."""
        return [f"ALTER TABLE {each.table} DROP CONSTRAINT {each.name}" for each in self.referring]

    def referring_again(self, *, checked: bool) -> list[str]:
        """Return the statements that make them again; not `checked`, they hold for new rows until they are."""
        ending = "" if checked else " NOT VALID"
        return [
            f"ALTER TABLE {each.table} ADD CONSTRAINT {each.name} {each.definition}{ending}" for each in self.referring
        ]

    def renamed_to(self, name: str) -> list[str]:
        """Return the statements that give the table another name, and free the names of its indexes."""
        indexes = [f"ALTER INDEX {each.name} RENAME TO {name}_{number}" for number, each in enumerate(self.indexes)]
        return [*indexes, f"ALTER TABLE {self.table} RENAME TO {name}"]

    def given(self, *, divided_by: str | None = None) -> list[str]:
        """Return the statements that give it all to a new table.

        If that is `divided_by` a column, what must be unique in the whole table has to have that column; the rest of
        such keys are the partitions' own.
        """
        of_whole = [
            each for each in self.constraints if each.kind == "f" or divided_by is None or divided_by in each.columns
        ]
        return [
            f"ALTER SEQUENCE {self.table}_id_seq OWNED BY {self.table}.id",
            *(f"GRANT {each.privilege} ON {self.table} TO {each.role}" for each in self.grants),
            *(f"ALTER TABLE {self.table} ADD CONSTRAINT {each.name} {each.definition}" for each in of_whole),
            *(each.definition.replace(" ON ONLY ", " ON ") for each in self.indexes if not each.is_of_constraint),
        ]


async def form_of(connection: CoreConnection, table: str) -> TableForm:
    """Return the form that a table has."""

    async def rows(query: TextClause) -> list[Any]:
        return list((await connection.execute(query, {"name": table})).all())

    return TableForm(table, await rows(_CONSTRAINTS), await rows(_INDEXES), await rows(_REFERRING), await rows(_GRANTS))


async def run_all(connection: CoreConnection, statements: list[str]) -> None:
    """Run statements one after another."""
    for statement in statements:
        await connection.exec_driver_sql(statement)
