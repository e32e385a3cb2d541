"""How `task.stored_bytes` is counted: by the lengths of the documents that are written, which are known by then.

What an update writes is added to what was written before, not put in its place: the row has the newest content alone,
but the task's events and earlier attempts have the content before it.
"""

from collections.abc import Iterable

DOCUMENTS = frozenset({"input", "config", "metadata", "output", "error", "logs", "detail", "meta"})
"""The columns of a task that have documents of any size."""


def stored_size(documents: Iterable[str | None]) -> int:
    """Return the bytes of encoded documents in UTF-8."""
    size = 0
    for text in documents:
        if text is not None:
            size += len(text) if text.isascii() else len(text.encode())
    return size
