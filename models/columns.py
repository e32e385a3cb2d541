"""Column types that behave alike on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, String, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine

BigKey = BigInteger().with_variant(Integer(), "sqlite")
"""An integer key: BIGINT on PostgreSQL. On SQLite it must be called INTEGER, or SQLite does not number it by itself."""

BytewiseText = String().with_variant(String(collation="C"), "postgresql")
"""A text that compares by its bytes, whatever the database's collation: an index on it finds beginnings of words."""


class PublicId(TypeDecorator[str]):
    """A UUIDv7 in its dashed text form: `uuid` on PostgreSQL, 36 characters on SQLite."""

    impl = String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use the native type where the database has one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid(as_uuid=False))
        return dialect.type_descriptor(String(36))


class DocumentType(TypeDecorator[Any]):
    """The type of `Document`."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use JSONB where the database has it; what is imported for that is not needed elsewhere."""
        if dialect.name != "postgresql":
            return super().load_dialect_impl(dialect)
        from sqlalchemy.dialects.postgresql import JSONB

        return dialect.type_descriptor(JSONB(none_as_null=True))


Document = DocumentType(none_as_null=True)
"""A JSON document: JSONB on PostgreSQL, text on SQLite. `None` is stored as NULL, not as the JSON word null."""


class Moment(TypeDecorator[datetime]):
    """An aware datetime in UTC: `timestamptz` on PostgreSQL, sortable text to the microsecond on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC. Raises `ValueError` for a naive datetime, which does not say what time it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime for the database needs a time zone; make it an aware one, such as in UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware datetime in UTC, whatever the driver returned."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
