"""SQLite: the embedded default database, for one process."""

from receiver.storage.sqlite.connection import PAGE_BYTES, SQLiteConnection, configure
from receiver.storage.sqlite.reader import SQLiteReader

__all__ = ["PAGE_BYTES", "SQLiteConnection", "SQLiteReader", "configure"]
