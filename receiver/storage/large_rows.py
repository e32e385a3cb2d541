"""Reads rows that may be large, such as tasks with pictures in them, without reading all of a page before it is cut.

The sizes come first, which both databases tell without handing over the documents. Then, when there is room for them,
the rows are read piece by piece, until the reader has enough.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache, reduce
from operator import add
from typing import Any

import orjson
from msgspec import Struct
from sqlalchemy import ColumnElement, Executable, Integer, Select, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from models.columns import DocumentType

MOST_PAGE_BYTES = 4 * 1024 * 1024
"""Of one page, as JSON, unless its first row alone has more."""
_PIECE_BYTES = 256 * 1024
"""As stored. PostgreSQL stores documents packed: unpacked they may have a hundred times as many bytes."""

SMALL_BYTES = 64 * 1024
"""What has this many bytes at most takes no room."""
_HELD_TIMES = 4
"""A page is held as values of rows, twice as JSON, and by the driver that reads it."""

Read = Callable[[Executable], Awaitable[list[dict[str, Any]]]]
Rows = list[dict[str, Any]]
Hold = Callable[[int], Awaitable[None]]
"""Takes room for this many bytes, and waits until there is some. Raises `Unavailable`."""


class document_bytes(FunctionElement[int]):  # noqa: N801 - used as a function, as SQLAlchemy's own constructs are
    """How many bytes a document has as it is stored; 0 if it is null."""

    type = Integer()
    inherit_cache = True  # its column says all of it: without, a page's query is compiled for each page


@compiles(document_bytes)
@compiles(document_bytes, "sqlite")
def _document_bytes_on_sqlite(element: document_bytes, compiler: Any, **options: Any) -> str:
    return f"coalesce(length(CAST({compiler.process(element.clauses, **options)} AS BLOB)), 0)"


@compiles(document_bytes, "postgresql")
def _document_bytes_on_postgresql(element: document_bytes, compiler: Any, **options: Any) -> str:
    return f"coalesce(pg_column_size({compiler.process(element.clauses, **options)}), 0)"


class LargeRows(Struct, frozen=True):
    """A query in a fixed order, the column that identifies each of its rows, and the expression of their size.

    `name` is the name of that column in the query's rows.
    """

    query: Select[Any]
    key: ColumnElement[int]
    size: ColumnElement[int]
    name: str = "id"


@cache
def bytes_of(*tables: Table) -> ColumnElement[int]:
    """Return the expression of the stored size of all documents in a row of these tables."""
    documents = [column for table in tables for column in table.c if isinstance(column.type, DocumentType)]
    return reduce(add, map(document_bytes, documents))


async def without_room(size: int) -> None:
    """Take no room: a `Hold` for who holds few pages at a time."""


class PageRoom:
    """The room that one page takes by `hold`: for `most` bytes before it is read, later for more if it has more."""

    def __init__(self, hold: Hold, most: int = MOST_PAGE_BYTES) -> None:
        self._hold = hold
        self._most = most
        self._size = 0
        """The bytes for which there is room."""

    async def begin(self, sizes: Sequence[int]) -> None:
        """Take room for the first of the rows that have these sizes, as many as are read."""
        total = 0
        for size in sizes:
            total += size
            if total >= self._most:
                break
        await self.grow(total)

    async def grow(self, size: int) -> None:
        """Take more room if the page has more than is known so far: what is stored packed is larger."""
        if size > self._size + SMALL_BYTES:
            more, self._size = size - self._size, size
            await self._hold(_HELD_TIMES * more)


async def in_pieces(
    read: Read, wanted: LargeRows, begin: Callable[[Sequence[int]], Awaitable[None]] | None = None
) -> AsyncIterator[tuple[Rows, list[int]]]:
    """Yield pieces of rows, in the order of the query, each with the keys of the rows that follow it.

    `begin` is called with the sizes of all rows before the first of them is read.
    """
    sizes = await read(wanted.query.with_only_columns(wanted.key.label("key"), wanted.size.label("size")))
    if begin is not None:
        await begin([row["size"] for row in sizes])
    rest = [row["key"] for row in sizes]
    pieces = _pieces([row["size"] for row in sizes])
    if len(pieces) < 2:
        yield (await read(wanted.query) if pieces else []), []
        return
    for count in pieces:
        keys, rest = rest[:count], rest[count:]
        yield await read(wanted.query.limit(None).offset(None).where(wanted.key.in_(keys))), rest


async def read_first(
    read: Read,
    wanted: LargeRows,
    hold: Hold,
    *,
    complete: Callable[[Rows], Awaitable[Rows]] | None = None,
    most: int = MOST_PAGE_BYTES,
) -> tuple[Rows, list[int]]:
    """Return the first rows, until they have `most` bytes as JSON, and the keys of those that were not read.

    `hold` takes the room for them, unless they are small; who calls gives it back. `complete` adds to the rows of a
    piece what else belongs to them. The last row may go beyond `most`.
    """
    found: Rows = []
    size = 0
    room = PageRoom(hold, most)
    async for piece, rest in in_pieces(read, wanted, room.begin):
        completed = piece if complete is None else await complete(piece)
        for index, row in enumerate(completed):
            found.append(row)
            size += len(orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS))
            if size >= most:
                await room.grow(size)
                return found, [*(each[wanted.name] for each in completed[index + 1 :]), *rest]
        await room.grow(size)
    return found, []


def _pieces(sizes: Sequence[int]) -> list[int]:
    """Return how many rows each piece has."""
    pieces: list[int] = []
    room = 0
    for size in sizes:
        if pieces and size <= room:
            pieces[-1] += 1
        else:
            pieces.append(1)
            room = _PIECE_BYTES
        room -= size
    return pieces
