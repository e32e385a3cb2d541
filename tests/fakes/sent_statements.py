"""The statements that a service sends to PostgreSQL: noted, held up, or their answers lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from receiver.storage.postgresql.one_statement import MARK
from tests.fakes.databases import outside

Fetch = Callable[..., Awaitable[Any]]
Before = Callable[[asyncpg.Connection], Awaitable[None]]


def statements(monkeypatch: pytest.MonkeyPatch, before: Before | None = None) -> list[str]:
    """Return the list that gets each statement which asyncpg sends from now on.

    `before` is awaited before the first one that is a transaction.
    """
    sent: list[str] = []
    for name in ("fetch", "execute"):
        send = getattr(asyncpg.Connection, name)

        async def noted(self: asyncpg.Connection, query: str, *rest: Any, _send: Fetch = send, **options: Any) -> Any:
            if query.startswith(MARK) and before is not None and not any(each.startswith(MARK) for each in sent):
                await before(self)
            sent.append(query)
            return await _send(self, query, *rest, **options)

        monkeypatch.setattr(asyncpg.Connection, name, noted)
    return sent


def cut(url: str, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Lose the answer to the next statement that is a transaction: it was executed, or never will be, or is on its way.

    "Lost" leaves the session as it is, and tells the client nothing but that its connection has broken.
    """
    fetch = asyncpg.Connection.fetch

    async def lose(self: asyncpg.Connection, query: str, *rest: Any, **options: Any) -> Any:
        if not query.startswith(MARK):
            return await fetch(self, query, *rest, **options)
        monkeypatch.undo()
        if how == "after":
            await fetch(self, query, *rest, **options)
        if how == "lost":
            raise ConnectionResetError
        with outside(url) as server:
            server.execute("SELECT pg_terminate_backend(?, 5000)", (self.get_server_pid(),))
        return await fetch(self, "SELECT 1")

    monkeypatch.setattr(asyncpg.Connection, "fetch", lose)
