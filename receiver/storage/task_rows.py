"""Reads whole rows of tasks by their keys: one query for all that are asked for while another is under way."""

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, case, literal_column

from models.columns import DocumentType
from receiver.errors import StorageUnavailable
from receiver.storage.database import Database
from receiver.storage.hot import HotQuery, HotRow
from receiver.storage.large_rows import SMALL_BYTES
from receiver.storage.tables import subscriptions, tasks

_MOST_AT_ONCE = 20
"""A query reads this many rows at most: on SQLite its documents are decoded on the event loop."""

# No parameter: a hot query has its keys alone.
_IS_SMALL = tasks.c.stored_bytes <= literal_column(str(SMALL_BYTES))


def _if_small(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((_IS_SMALL, column)).label(column.key) if isinstance(column.type, DocumentType) else column


_TASKS = HotQuery(
    tasks.c.id,
    {"task": [_if_small(each) for each in tasks.c], "callback": [subscriptions.c.endpoint_url]},
    lambda query: query.outerjoin(subscriptions, tasks.c.callback_id == subscriptions.c.id),
)

_Asked = asyncio.Future[dict[str, Any] | None]
"""A row that is asked for."""


class TaskRows:
    """The rows of tasks, with the columns that `receiver.storage.tasks.task_by_id` has; no documents of large ones."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[int, _Asked] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, key: int) -> dict[str, Any] | None:
        """Return the row with this key, None if there is none. Raises `StorageUnavailable`.

        One whose `stored_bytes` are many has None in place of its documents.
        """
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_waiting())
        return await asyncio.shield(waiting)

    async def _read_waiting(self) -> None:
        while self._waiting:
            asked = {key: self._waiting.pop(key) for key in tuple(islice(self._waiting, _MOST_AT_ONCE))}
            try:
                found = {row["task"]["id"]: _row(row) for row in await self._database.read_by_keys(_TASKS, asked)}
            except Exception as error:
                _fail(asked, error)
            except asyncio.CancelledError:  # the driver's too, for a broken call: then all would wait without end
                _fail(asked | self._waiting, StorageUnavailable("the database cannot be read at present; try again"))
                self._waiting = {}
                raise
            else:
                for key, each in asked.items():
                    each.set_result(found.get(key))
                await asyncio.sleep(0)  # on SQLite the query itself gives no turn to others


def _fail(asked: Mapping[int, _Asked], error: Exception) -> None:
    for each in asked.values():
        each.set_exception(error)
        each.exception()  # it is raised where the row is awaited, if it still is


def _row(found: HotRow) -> dict[str, Any]:
    return {**found["task"], "callback_url": found["callback"]["endpoint_url"]}
