"""Statements about idempotency keys that are a transaction of their own: claims of new ones, and responses to save.

Each writes all that it is given or nothing: then it is done with locks (`receiver.storage.idempotency`).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import asyncpg

from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.one_statement import MARK
from receiver.storage.postgresql.statement_parts import is_given
from receiver.storage.transaction import Values

_NEW = ("scope", "organization_id", "body", "resource_id", "owner", "lease_until", "created_at")
_CLAIM = f"""{MARK} INSERT INTO idempotency_key ({", ".join(_NEW)})
SELECT * FROM unnest(
    $1::text[], $2::bigint[], $3::text[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::timestamptz[]
) AS new({", ".join(_NEW)})
WHERE NOT EXISTS (SELECT 1 FROM idempotency_key WHERE {is_given("scope", 1, "text")})
ORDER BY new.scope RETURNING id
"""
"""Another process may insert one of the keys meanwhile: then its unique scope makes the statement fail."""

_CLAIMED = "SELECT 1 FROM idempotency_key WHERE scope = $1 AND owner = $2 AND lease_until = $3"

_ANSWER = ("scope", "owner", "status", "content_type", "answer")
_SAVE = f"""{MARK} WITH held AS MATERIALIZED (
    SELECT key.id, given.status, given.content_type, given.answer
    FROM unnest((SELECT $1::text[]), $2::uuid[], $3::integer[], $4::text[], $5::text[]) AS given({", ".join(_ANSWER)})
    JOIN idempotency_key AS key ON key.scope = given.scope AND key.owner = given.owner
    WHERE key.status IS NULL AND {is_given("key.scope", 1, "text")}
    ORDER BY key.id FOR UPDATE OF key
)
UPDATE idempotency_key AS key SET status = held.status, content_type = held.content_type, answer = held.answer
FROM held WHERE key.id = held.id AND (SELECT count(DISTINCT id) FROM held) = cardinality($1) RETURNING key.id
"""


class _AllOrNone:
    """A statement that writes all of its rows or none, and returns one row for each that it wrote."""

    _text: ClassVar[str]
    _columns: ClassVar[tuple[str, ...]]

    def __init__(self, rows: Sequence[Values]) -> None:
        self._rows = rows

    def statement(self) -> tuple[Any, ...]:
        """Return the statement and its parameters: an array for each column."""
        return (self._text, *([row[name] for row in self._rows] for name in self._columns))

    def take(self, rows: Sequence[asyncpg.Record]) -> bool:
        """Return whether all were written, by what the statement returned; else none was."""
        return len(rows) == len(self._rows)


class KeysClaiming(_AllOrNone):
    """The claim of keys that are new."""

    _text, _columns = _CLAIM, _NEW

    async def find(self, connection: CoreConnection) -> bool | None:
        """Return whether they were claimed, if the answer is missing; None if that cannot be told."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None  # noqa: S101 - the connection is open
        one = self._rows[0]
        return True if await driver.fetch(_CLAIMED, one["scope"], one["owner"], one["lease_until"]) else None


class AnswersSaving(_AllOrNone):
    """The saving of responses under claims that are held."""

    _text, _columns = _SAVE, _ANSWER

    async def find(self, _connection: CoreConnection) -> bool | None:
        """Return None: another process may have taken a claim over, and saved a response of its own."""
        return None
