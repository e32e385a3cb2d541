"""Tells of tasks that have not changed for long, each once while it stays so."""

from collections import OrderedDict
from datetime import datetime, timedelta

from models import EventType
from receiver.clock import utc_now
from receiver.domain.system_events import task_stuck
from receiver.domain.task_state import TaskState
from receiver.events.system import SystemEvents
from receiver.storage.system import TOLD_AGAIN
from receiver.storage.writer import Writer
from receiver.telemetry.log import get_logger

log = get_logger("tracking.stuck")

_MOST_KNOWN = 10_000
"""How many tasks are remembered as told: of one that is forgotten, the database is asked again."""


class StuckTasks:
    """Tells of tasks that have not changed for `seconds`; 0 tells of none."""

    def __init__(self, writer: Writer, system_events: SystemEvents, seconds: float) -> None:
        self._writer = writer
        self._system_events = system_events
        self._after = timedelta(seconds=seconds)
        self._told: OrderedDict[str, datetime] = OrderedDict()

    async def note(self, task: TaskState, since: datetime) -> None:
        """Tell of a task that has not changed `since` then, if that is too long ago and was not told yet."""
        now = utc_now()
        if not self._after or now - since < self._after:
            return
        if (told_at := self._told.get(task.uid)) is not None and now - told_at < TOLD_AGAIN:
            return
        what = (EventType.TASK_STUCK, task.uid, task.organization_id, task_stuck(task, since))
        if await self._writer.run(lambda tx: self._system_events.tell(tx, *what, now), bounded=False):
            log.warning("task stuck", task_id=task.uid, provider=task.provider, unchanged_since=since.isoformat())
        self._told[task.uid] = now
        self._told.move_to_end(task.uid)
        if len(self._told) > _MOST_KNOWN:
            self._told.popitem(last=False)
