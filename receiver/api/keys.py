"""`/api/v1/keys`: API keys. A key is returned once, when it is created, and stored as a hash."""

from collections.abc import Mapping
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row
from receiver.api.lists import page, read_cursor
from receiver.api.schemas import CreateKey, Page
from receiver.clock import utc_now
from receiver.domain.audit_values import key_difference
from receiver.domain.keyring import new_api_key
from receiver.domain.representations import iso
from receiver.errors import BadRequest, Conflict, NotFound
from receiver.storage import keys as storage
from receiver.storage.audit import audit
from receiver.storage.transaction import Transaction


async def create_key(call: Call) -> Reply:
    """`POST /api/v1/keys`: create a key, which only this response contains.

    A repetition whose first answer was lost returns the same key with a new secret, for no client got the first one.
    """
    wanted = await call.body(CreateKey)
    if wanted.expires_at is not None and wanted.expires_at <= utc_now():
        raise BadRequest("must be in the future", param="expires_at")
    key = new_api_key()
    row = storage.key_row(
        call.organization_id,
        key,
        wanted.name,
        wanted.scope,
        utc_now(),
        uid=call.new_id(),
        rate_limit=wanted.rate_limit,
        expires_at=wanted.expires_at,
    )

    actor = call.actor()

    async def insert(tx: Transaction) -> bool:
        if not call.is_resumed:
            await storage.insert_key(tx, row)
        elif not await storage.insert_key_again(tx, row):
            return False
        await audit(tx, actor, "key.renew" if call.is_resumed else "key.create", row["uid"], key_difference(None, row))
        return True

    if not await call.services.database.writer.run(insert):
        raise Conflict("the key that this request created has been revoked since: send a new Idempotency-Key")
    call.services.authenticator.created(row["hash"])
    return Reply({**_view(row), "key": key}, "key")


async def list_keys(call: Call) -> Reply:
    """`GET /api/v1/keys`: list the keys that are not revoked, newest first."""
    query = call.query(Page)
    keys = storage.live_keys(call.organization_id, query.limit + 1, read_cursor(query.cursor))
    rows = await call.services.database.read(keys)
    return page(rows, query.limit, [_view(row) for row in rows])


async def get_key(call: Call) -> Reply:
    """`GET /api/v1/keys/{id}`: return a key that is not revoked."""
    query = storage.live_key_by_id(call.organization_id, call.path_id("key_id"))
    return Reply(_view(await find_row(call.services.database, query, "key")), "key")


async def revoke_key(call: Call) -> Reply:
    """`DELETE /api/v1/keys/{id}`: revoke a key, and end what is open with it."""
    uid = call.path_id("key_id")
    in_use, actor = call.services.authenticator.in_use, call.actor()

    async def revoke(tx: Transaction) -> bool:
        row = await storage.revoke_key(tx, call.organization_id, uid, utc_now())
        if row is None:
            return False
        await audit(tx, actor, "key.revoke", uid, key_difference(row, None))
        tx.after_commit.append(lambda: in_use.end([row["id"]]))
        return True

    if not await call.services.database.writer.run(revoke):
        raise NotFound("there is no key with this id", code="key_not_found", param="key_id")
    return Reply({"object": "key", "id": uid, "deleted": True}, "key")


def _view(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "key",
        "id": row["uid"],
        "name": row["name"],
        "scope": row["scope"],
        "hint": row["hint"],
        "rate_limit": row["rate_limit"],
        "created_at": iso(row["created_at"]),
        "expires_at": iso(row["expires_at"]),
        "last_used_at": iso(row.get("last_used_at")),
    }
