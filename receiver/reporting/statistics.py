"""Statistics of an organization or of one webhook: the sums of a range of time, and how things stand now."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol

from msgspec import Struct

from models import StatisticStep
from receiver.clock import utc_now
from receiver.domain.histograms import ERROR, merged, percentile
from receiver.domain.representations import iso
from receiver.domain.time_steps import LENGTHS, end_of, spans, start_of, starts_between
from receiver.errors import BadRequest
from receiver.storage.database import Database
from receiver.storage.organizations import organization_by_key
from receiver.storage.samples import MOST_COUNTED, OPEN_TASKS
from receiver.storage.statistics import reading, standing
from receiver.storage.statistics.counting import ALL_DELIVERIES
from receiver.storage.statistics.sums import MINUTES_KEPT

MOST_STEPS = 750
"""Twelve and a half hours of minutes, or a month of hours."""
MOST_SHOWN = 50
"""Models, and webhooks, that are shown one by one."""
_DEFAULT_RANGE = timedelta(hours=1)
_DAY = timedelta(days=1)
_MINUTES_UP_TO = timedelta(hours=12)
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

Row = Mapping[str, Any]


class LimitedProvider(Protocol):
    """A provider, as the statistics see it."""

    def paused_for(self) -> float:
        """Return the seconds until the end of a pause; 0 without one."""
        ...

    def key_refusal(self) -> str | None:
        """Return why the provider refused Ringback's own key at the last call; None if it did not."""
        ...


class StatisticRange(Struct, frozen=True):
    """A range of time in steps of one length, which begins and ends with one."""

    step: StatisticStep
    since: datetime
    until: datetime

    @classmethod
    def of(cls, since: datetime | None, until: datetime | None, step: str | None, *, now: datetime) -> "StatisticRange":
        """Return the range that a request names: of the last hour by default. Raises `BadRequest`."""
        until = now if until is None else min(until, now)
        since = until - _DEFAULT_RANGE if since is None else since
        if since >= until:
            raise _refused("must be before `until`, and in the past", "since")
        named = StatisticStep.MINUTE if until - since <= _MINUTES_UP_TO else StatisticStep.HOUR
        length = named if step is None else StatisticStep(step)
        if step is None and since < now - MINUTES_KEPT:
            length = StatisticStep.HOUR
        found = cls(length, start_of(length, since), end_of(length, until))
        if length == StatisticStep.MINUTE and since < now - MINUTES_KEPT:
            raise _refused("is too long ago for step=minute: minutes are kept for two days; use step=hour", "since")
        if (found.until - found.since) // LENGTHS[length] > MOST_STEPS:
            raise _refused(
                f"is more than {MOST_STEPS} steps before `until`; use step=hour, or a shorter range", "since"
            )
        return found

    def series(self, rows: Iterable[Sequence[int]] | None, numbers: Sequence[str]) -> list[dict[str, Any]]:
        """Return the numbers of every step; of those without a row they are 0.

        A row is when the step begins, in seconds since 1970, and the numbers by these names.
        """
        by_time = {row[0]: row[1:] if min(row) >= 0 else [max(0, number) for number in row[1:]] for row in rows or ()}
        nothing = [0] * len(numbers)
        return [
            {"at": at, **dict(zip(numbers, by_time.get(second, nothing), strict=True))}
            for second, at in _beginnings(self.step, self.since, self.until)
        ]


@lru_cache(maxsize=4)  # the series of one answer have the same
def _beginnings(step: StatisticStep, since: datetime, until: datetime) -> list[tuple[int, str]]:
    """Return when each step of a range begins: in seconds since 1970, and as it is shown."""
    return [(int(at.timestamp()), str(iso(at))) for at in starts_between(step, since, until)]


class Statistics:
    """Reads statistics. `calls_per_second` is the limit of calls to a provider."""

    def __init__(self, database: Database, providers: Mapping[str, LimitedProvider], calls_per_second: float) -> None:
        self._database = database
        self._providers = providers
        self._calls_per_second = calls_per_second

    async def of_organization(self, organization_id: int, wanted: StatisticRange, model: str | None) -> dict[str, Any]:
        """Return the statistics of an organization; with `model` the tasks are those of one model."""
        tasks = await self._tasks(organization_id, wanted, model)
        deliveries = await self._deliveries(organization_id, ALL_DELIVERIES, wanted)
        webhooks = await self._webhooks(organization_id)
        now = str(iso(utc_now()))
        due = (each["next_due_at"] for each in webhooks["shown"] if each["next_due_at"] is not None)
        deliveries["oldest_due_at"] = min((at for at in due if at <= now), default=None)
        return {
            "object": "stats",
            **_range(wanted, await self._counted_until()),
            "model": model,
            "tasks": tasks,
            "deliveries": deliveries,
            "webhooks": webhooks,
            "providers": await self._providers_of(organization_id),
            "service": {"version": version("ringback"), "replicas": await self._database.processes()},
        }

    async def of_webhook(self, webhook: Row, wanted: StatisticRange) -> dict[str, Any]:
        """Return the statistics of one webhook, given its row."""
        of_one = {"organization": webhook["organization_id"], "subscriptions": [webhook["id"]], "most": 1}
        rows = await self._database.read(standing.webhook_backlogs(chosen=True), of_one)
        return {
            "object": "stats",
            **_range(wanted, await self._counted_until()),
            **(_webhook(rows[0]) if rows else {}),
            "deliveries": await self._deliveries(webhook["organization_id"], webhook["id"], wanted),
        }

    async def of_webhooks(self, organization_id: int, keys: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the numbers of several webhooks, by their row keys: of the last day, in hours, and what waits now."""
        now = utc_now()
        wanted = StatisticRange.of(now - _DAY, now, StatisticStep.HOUR, now=now)
        span = (wanted.step, wanted.since, wanted.until)
        sums = await self._database.read(reading.delivery_totals(organization_id, keys, span))
        of_these = {"organization": organization_id, "subscriptions": list(keys), "most": len(keys)}
        backlogs = await self._database.read(standing.webhook_backlogs(chosen=True), of_these)
        numbers, waiting = (
            {row[name]: row for row in rows} for name, rows in (("subscription_id", sums), ("id", backlogs))
        )
        return {key: _numbers(wanted, numbers.get(key), waiting.get(key)) for key in keys}

    async def _tasks(self, organization_id: int, wanted: StatisticRange, model: str | None) -> dict[str, Any]:
        read = self._database.read
        range_of = (wanted.step, wanted.since, wanted.until)
        (now,) = await read(standing.open_tasks(organization_id, model))
        (due,) = await read(standing.oldest_due_task(), {"organization": organization_id, "now": utc_now()})
        (found,) = await read(reading.task_series(organization_id, *range_of, model))
        rows = await read(reading.task_sums(organization_id, spans(*range_of), model))
        totals = {name: sum(row[name] for row in rows) for name in (*reading.TASK_NUMBERS, "by_webhook", "by_poll")}
        ended = sum(totals[name] for name in reading.TASK_NUMBERS[1:])
        return {
            "now": {status.value: now[status] for status in OPEN_TASKS},
            "counted_up_to": MOST_COUNTED,
            "oldest_due_at": iso(due["oldest"]),
            **totals,
            "by_other": ended - totals["by_webhook"] - totals["by_poll"],
            "models": _models(rows),
            "percentile_error": ERROR,
            "series": wanted.series(found["series"], reading.TASK_NUMBERS),
        }

    async def _deliveries(self, organization_id: int, subscription_id: int, wanted: StatisticRange) -> dict[str, Any]:
        span = (wanted.step, wanted.since, wanted.until)
        whose = (organization_id, subscription_id)
        (found,) = await self._database.read(reading.delivery_series(*whose, span))
        (sums,) = await self._database.read(reading.delivery_sums(*whose, spans(*span)))
        totals = {name: sums[name] or 0 for name in reading.DELIVERY_NUMBERS}
        latencies = merged(sums["histograms"] or ())
        series = wanted.series(found["series"], reading.DELIVERY_NUMBERS)
        return {
            **totals,
            "failed": totals["attempts"] - totals["delivered"],
            "success_rate": totals["delivered"] / totals["attempts"] if totals["attempts"] else None,
            **{f"{name}_ms": percentile(latencies, share) for name, share in _SHARES.items()},
            "percentile_error": ERROR,
            "series": [{**each, "failed": max(0, each["attempts"] - each["delivered"])} for each in series],
        }

    async def _webhooks(self, organization_id: int) -> dict[str, Any]:
        of_all = {"organization": organization_id, "most": MOST_SHOWN}
        shown = await self._database.read(standing.webhook_backlogs(), of_all)
        (counts,) = await self._database.read(standing.faulty_webhooks(organization_id))
        return {
            **{name: counts[name] for name in ("failing", "disabled")},
            "counted_up_to": standing.MOST_PENDING,
            "shown": [_webhook(row) for row in shown],
        }

    async def _providers_of(self, organization_id: int) -> list[dict[str, Any]]:
        """Return how the providers stand, for an organization whose account it is; for others that is not theirs."""
        (organization,) = await self._database.read(organization_by_key(organization_id))
        if not organization["owns_provider_account"]:
            return []
        rows = [] if self._database.shared is None else await self._database.read(standing.provider_use())
        use = {row["provider"]: row for row in rows}
        return [
            {
                "name": name,
                "calls_per_second": self._calls_per_second,
                "paused_seconds": round(max(each.paused_for(), use.get(name, _UNUSED)["paused"]), 1),
                "reserved_seconds": round(use.get(name, _UNUSED)["reserved"], 1),
                "key_is_refused": each.key_refusal() is not None,
            }
            for name, each in self._providers.items()
        ]

    async def _counted_until(self) -> datetime:
        """Return up to when what happened is in the sums, about."""
        now = utc_now()
        (first,) = await self._database.read(reading.first_uncounted())
        return min(moment for moment in (first["event"], first["attempt"], now) if moment is not None)


def _numbers(wanted: StatisticRange, sums: Row | None, waiting: Row | None) -> dict[str, Any]:
    attempts, delivered = (0, 0) if sums is None else (int(sums["attempts"]), int(sums["delivered"]))
    return {
        "since": iso(wanted.since),
        "until": iso(wanted.until),
        "attempts": attempts,
        "delivered": delivered,
        "success_rate": delivered / attempts if attempts else None,
        "pending": 0 if waiting is None else waiting["pending"],
        "next_due_at": None if waiting is None else iso(waiting["next_due"]),
    }


_UNUSED: Row = {"paused": 0.0, "reserved": 0.0}


def _range(wanted: StatisticRange, counted_until: datetime) -> dict[str, Any]:
    return {
        "since": iso(wanted.since),
        "until": iso(wanted.until),
        "step": wanted.step,
        "counted_until": iso(counted_until),
    }


def _models(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the models with the most tasks: their numbers, and how long completed tasks took, in seconds."""
    found = []
    for row in rows:
        durations = merged(row["histograms"])
        took = {name: percentile(durations, share) for name, share in _SHARES.items()}
        found.append(
            {
                **{name: row[name] for name in ("provider", "model", *reading.TASK_NUMBERS)},
                **{f"{name}_seconds": None if each is None else each / 1000 for name, each in took.items()},
            }
        )
    return sorted(found, key=lambda each: (-each["created"] - each["completed"], each["model"]))[:MOST_SHOWN]


def _webhook(row: Row) -> dict[str, Any]:
    return {
        "webhook_id": row["uid"],
        "endpoint_url": row["endpoint_url"],
        "is_active": row["is_active"],
        "disabled_reason": row["disabled_reason"],
        "failing_since": iso(row["failing_since"]),
        "pending": row["pending"],
        "next_due_at": iso(row["next_due"]),
    }


def _refused(message: str, param: str) -> BadRequest:
    return BadRequest(message, code="invalid_query_params", param=param)
