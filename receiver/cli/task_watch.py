"""`ringback task list --watch`: the list, drawn again when the event stream tells of a change."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from receiver.cli.console import plain_table
from receiver.cli.failure import Failure
from receiver.cli.following import StreamMessage, follow
from receiver.cli.live import watch
from receiver.cli.show import TASK_COLUMNS, task_cells

_EVERY_SECONDS = 10.0
"""Ages are drawn again this often, and changes are seen that the stream does not tell."""


class _Changes:
    """Follows the event stream in a thread, and knows whether it told of a change since that was asked last."""

    def __init__(self, filters: Mapping[str, Any]) -> None:
        self._filters = {"event_types": "task.*", **filters}
        self._changed = threading.Event()
        self._failure: Failure | None = None

    def start(self) -> None:
        # The stream has no end of its own: the thread ends with the command.
        threading.Thread(target=self._follow, daemon=True, name="ringback-watch").start()

    def take(self) -> bool:
        """Return whether there was a change. Raises `Failure` if the service refused the stream."""
        if self._failure is not None:
            raise self._failure
        is_changed = self._changed.is_set()
        self._changed.clear()
        return is_changed

    def _follow(self) -> None:
        try:
            for told in follow(self._filters, None):
                if isinstance(told, StreamMessage):
                    self._changed.set()
        except Failure as failure:
            self._failure = failure
        except ValueError:  # not an event of ours: the list is drawn again at intervals anyway
            pass


def watch_tasks(read: Callable[[], Sequence[Mapping[str, Any]]], filters: Mapping[str, Any]) -> None:
    """Show the tasks that `read` returns until the user ends it; `filters` are those that the stream has too."""
    changes = _Changes(filters)
    changes.start()
    watch(lambda: plain_table(TASK_COLUMNS, map(task_cells, read())), every_seconds=_EVERY_SECONDS, is_due=changes.take)
