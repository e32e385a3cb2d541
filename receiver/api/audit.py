"""`/api/v1/audit`: who changed what in the caller's organization."""

from collections.abc import Mapping
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row, read_id
from receiver.api.lists import page, read_cursor
from receiver.api.schemas import AuditQuery
from receiver.domain.representations import iso
from receiver.errors import BadRequest
from receiver.storage.audit import AuditFilter, audit_entries_matching
from receiver.storage.keys import key_by_id


async def list_audit_entries(call: Call) -> Reply:
    """`GET /api/v1/audit`: list who changed what, newest first."""
    query, read = call.query(AuditQuery), call.services.database.read
    if query.since and query.until and query.until <= query.since:
        raise BadRequest("must be after since", code="invalid_query_params", param="until")
    key = None
    if query.key_id is not None:
        uid = read_id(query.key_id, param="key_id", code="invalid_query_params")
        key = (await find_row(call.services.database, key_by_id(call.organization_id, uid), "key"))["id"]
    wanted = AuditFilter(
        organization_id=call.organization_id,
        action=query.action,
        target=query.target,
        api_key_id=key,
        created_after=query.since,
        created_before=query.until,
        before=read_cursor(query.cursor),
    )
    rows = await read(audit_entries_matching(wanted, query.limit + 1))
    return page(rows, query.limit, [_view(row) for row in rows])


def _view(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "audit_entry",
        "id": row["uid"],
        "action": row["action"],
        "target": row["target"],
        "actor": row["actor"],
        "key_id": row["key_uid"],
        "address": row["address"],
        "request_id": row["request_id"],
        "before": row["before"],
        "after": row["after"],
        "created_at": iso(row["created_at"]),
    }
