"""`/api/v1/report`: proof of delivery."""

from datetime import timedelta

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.schemas import ReportQuery
from receiver.clock import utc_now
from receiver.reporting.views import native_report

_DEFAULT_RANGE = timedelta(hours=24)


async def get_report(call: Call) -> Reply:
    """`GET /api/v1/report`: report what was created, ended and delivered since a time, and what is missing."""
    query = call.query(ReportQuery)
    since = query.since or utc_now() - _DEFAULT_RANGE
    return Reply(native_report(await call.services.reporter.report(call.organization_id, since)), "report")
