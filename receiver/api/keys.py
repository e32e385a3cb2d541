"""`/api/v1/keys`: API keys. A key is returned once, when it is created, and stored as a hash."""

from collections.abc import Mapping
from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.lists import page, read_cursor
from receiver.api.schemas import CreateKey, Page
from receiver.clock import utc_now
from receiver.domain.keyring import new_api_key
from receiver.domain.representations import iso
from receiver.errors import Conflict, NotFound
from receiver.storage import keys as storage


async def create_key(call: Call) -> Reply:
    """`POST /api/v1/keys`: create a key, which only this response contains.

    A resumed request replaces the secret of the key that the earlier one created: no client got that secret.
    """
    wanted = await call.body(CreateKey)
    key = new_api_key()
    row = storage.key_row(
        call.organization_id,
        key,
        wanted.name,
        wanted.scope,
        utc_now(),
        uid=call.new_id(),
        rate_limit=wanted.rate_limit,
    )
    run = call.services.database.writer.run
    if not call.is_resumed:
        await run(lambda tx: storage.insert_key(tx, row))
    elif not await run(lambda tx: storage.insert_key_again(tx, row)):
        raise Conflict("the key that this request created has been revoked since: send a new Idempotency-Key")
    call.services.authenticator.created(row["hash"])
    return Reply({**_view(row), "key": key}, "key")


async def list_keys(call: Call) -> Reply:
    """`GET /api/v1/keys`: all keys that are not revoked, newest first."""
    query = call.query(Page)
    keys = storage.live_keys(call.organization_id, query.limit + 1, read_cursor(query.cursor))
    rows = await call.services.database.read(keys)
    return page(rows, query.limit, [_view(row) for row in rows])


async def revoke_key(call: Call) -> Reply:
    """`DELETE /api/v1/keys/{id}`: revoke a key."""
    uid = call.path_id("key_id")
    revoked = await call.services.database.writer.run(
        lambda tx: storage.revoke_key(tx, call.organization_id, uid, utc_now())
    )
    call.services.authenticator.forget()
    if not revoked:
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
    }
