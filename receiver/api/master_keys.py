"""`/api/v1/master-keys`: which master keys are in use, and encrypting what is stored with the newest one.

For the operator: the master keys are the installation's. A rotation is a sequence of requests, each of which handles
one page and says where the next begins, so that no request is long and a client may go on after any interruption.
"""

from typing import Any

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.organizations import require_operator
from receiver.api.schemas import RotateMasterKey
from receiver.domain.representations import iso
from receiver.storage.key_rotation import Position

_FIRST: Position = (0, 0)


async def get_master_keys(call: Call) -> Reply:
    """`GET /api/v1/master-keys`: return the master keys in use, and how many tasks need an earlier one."""
    await _check_operator(call)
    status = await call.services.key_rotation.status()
    keys: list[dict[str, Any]] = [
        {
            "fingerprint": key.fingerprint,
            "is_in_settings": key.is_here,
            "is_newest": key.is_newest,
            "newest_since": iso(key.newest_since),
        }
        for key in status.keys
    ]
    tasks = {"count": status.tasks.count, "until": iso(status.tasks.until)}
    return Reply({"object": "master_keys", "keys": keys, "rows": status.rows, "tasks": tasks}, "master_keys")


async def rotate_master_key(call: Call) -> Reply:
    """`POST /api/v1/master-keys/rotate`: encrypt one page of rows with the newest master key.

    With `dry_run` they are only counted. Doing it twice changes nothing more.
    """
    await _check_operator(call)
    wanted = await call.body(RotateMasterKey, optional=True)
    position = _FIRST if wanted.cursor is None else _read_position(wanted.cursor)
    actor = call.actor() if wanted.cursor is None and not wanted.dry_run else None
    page = await call.services.key_rotation.page(position, actor, dry_run=wanted.dry_run)
    newest = call.services.key_rotation.newest
    keys = [
        {"fingerprint": fingerprint, "is_newest": fingerprint == newest, "values": count}
        for fingerprint, count in sorted(page.tally.by_key.items())
    ]
    found = {
        "object": "master_key_rotation",
        "rows": page.rows,
        "keys": keys,
        "unreadable": page.tally.unreadable,
        "next_cursor": None if page.following is None else "{}.{}".format(*page.following),
    }
    return Reply(found, "master_key_rotation")


async def _check_operator(call: Call) -> None:
    await require_operator(call, "master keys are")


def _read_position(cursor: str) -> Position:
    place, _, key = cursor.partition(".")
    return int(place), int(key)
