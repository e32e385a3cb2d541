"""Sends alerts to the operator's channels: what is due is sent together, and what a channel did not take, again."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from receiver.clock import utc_now
from receiver.domain.schedules import alert_delay
from receiver.events.system import SystemEvents
from receiver.outbound.alert_channels import AlertChannels
from receiver.storage.database import Database
from receiver.storage.system import claim_alerts, delete_alerts, next_alert, postpone_alerts
from receiver.telemetry.log import get_logger

log = get_logger("workers.alerts")

PAUSE_SECONDS = 10.0
"""Between two messages: what comes meanwhile is sent together, so that a flood of events is no flood of messages."""
_LEASE = timedelta(seconds=120)
"""Longer than Apprise waits for an answer."""
_LONGEST_WAIT_SECONDS = 60.0
_AT_ONCE = 500
_MOST_LINES = 20
_GIVEN_UP_AFTER = timedelta(days=1)

_Row = dict[str, Any]


class AlertWorker:
    """Sends the alerts of all processes that it can claim."""

    def __init__(
        self,
        database: Database,
        channels: AlertChannels,
        system_events: SystemEvents,
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._channels = channels
        self._written = system_events.alerts_written
        self._pause = pause_seconds

    async def run(self) -> None:
        """Send what is due, as soon as it is, until cancelled."""
        while True:
            self._written.clear()
            if due := await self._claim():
                await self._send(due)
                await asyncio.sleep(self._pause)
            else:
                await self._wait()

    async def _claim(self) -> list[_Row]:
        now = utc_now()
        return await self._database.writer.run(lambda tx: claim_alerts(tx, now, now + _LEASE, _AT_ONCE), bounded=False)

    async def _wait(self) -> None:
        rows = await self._database.read(next_alert())
        seconds = _LONGEST_WAIT_SECONDS
        if rows:
            seconds = min(max((rows[0]["due_at"] - utc_now()).total_seconds(), 0.0), seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._written.wait()

    async def _send(self, due: Sequence[_Row]) -> None:
        by_channel: dict[str, list[_Row]] = {}
        for row in due:
            by_channel.setdefault(row["channel"], []).append(row)
        for channel, rows in by_channel.items():
            if channel not in self._channels.fingerprints or await self._channels.send(channel, *_message(rows)):
                await self._delete(rows)
            else:
                await self._try_later(rows)

    async def _try_later(self, rows: Sequence[_Row]) -> None:
        now = utc_now()
        over = [row for row in rows if row["created_at"] < now - _GIVEN_UP_AFTER]
        if over:
            log.error("alerts given up", alerts=len(over), event_ids=[row["event_uid"] for row in over[:_MOST_LINES]])
            await self._delete(over)
        if rest := [row for row in rows if row not in over]:
            due_at = now + timedelta(seconds=alert_delay(min(row["attempt"] for row in rest)))
            log.warning("alerts not sent", alerts=len(rest), next_attempt_at=due_at.isoformat())
            keys = [row["id"] for row in rest]
            await self._database.writer.run(lambda tx: postpone_alerts(tx, keys, due_at), bounded=False)

    async def _delete(self, rows: Sequence[_Row]) -> None:
        keys = [row["id"] for row in rows]
        await self._database.writer.run(lambda tx: delete_alerts(tx, keys), bounded=False)


def _message(rows: Sequence[_Row]) -> tuple[str, str]:
    """Return the title and the body of one message about several alerts."""
    title = f"Ringback: {rows[0]['type']}" if len(rows) == 1 else f"Ringback: {len(rows)} system events"
    lines = [f"{_minute(row['created_at'])} {row['type']}: {row['text']}" for row in rows[:_MOST_LINES]]
    if len(rows) > _MOST_LINES:
        lines.append(f"... and {len(rows) - _MOST_LINES} more")
    return title, "\n".join(lines)


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
