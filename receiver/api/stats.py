"""`/api/v1/stats`, and the same for one webhook: numbers that are read from sums, without counting rows."""

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.schemas import StatsQuery, WebhookStatsQuery
from receiver.api.webhooks import find_webhook
from receiver.clock import utc_now
from receiver.reporting.statistics import StatisticRange


async def get_stats(call: Call) -> Reply:
    """`GET /api/v1/stats`: tasks, deliveries, webhooks and providers, now and in a range of time."""
    query = call.query(StatsQuery)
    found = await call.services.statistics.of_organization(call.organization_id, _range(query), query.model)
    return Reply(found, "stats")


async def get_webhook_stats(call: Call) -> Reply:
    """`GET /api/v1/webhooks/{id}/stats`: the deliveries of one webhook, now and in a range of time."""
    query = call.query(WebhookStatsQuery)
    return Reply(await call.services.statistics.of_webhook(await find_webhook(call), _range(query)), "stats")


def _range(query: WebhookStatsQuery) -> StatisticRange:
    return StatisticRange.of(query.since, query.until, query.step, now=utc_now())
