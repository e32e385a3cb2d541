"""What the bench works on: a database with tasks that wait, and the webhooks that end them."""

from datetime import timedelta
from pathlib import Path

import orjson
from sqlalchemy import insert

from models import Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.keys import ensure_organization
from receiver.storage.schema import migrate
from receiver.storage.tables import tasks
from receiver.storage.transaction import Transaction

KEYS = ["a-master-key-for-the-bench"]
PORT_HEADERS = "host: 127.0.0.1\r\ncontent-type: application/json"
_AT_ONCE = 500


def settings_for(folder: Path) -> Settings:
    """Return the bench's settings: SQLite in `folder`."""
    environment = {
        "RINGBACK_DATABASE_URL": f"sqlite:///{folder / 'ringback.db'}",
        "RINGBACK_PIAPI_BASE_URL": "http://127.0.0.1:9",
        "RINGBACK_ALLOW_PRIVATE_TARGETS": "true",
    }
    return load_settings(environment, env_file=None)


async def fill(folder: Path, count: int) -> list[str]:
    """Make a database with `count` tasks at the provider; return their ids."""
    settings = settings_for(folder)
    migrate(settings)
    async with await Database.open(settings) as database:
        await database.writer.run(lambda tx: ensure_organization(tx, "default", utc_now()))
        uids = [new_id() for _ in range(count)]
        for first in range(0, count, _AT_ONCE):
            await _insert(database, uids[first : first + _AT_ONCE])
    return uids


async def _insert(database: Database, uids: list[str]) -> None:
    async def work(tx: Transaction) -> None:
        await tx.execute(insert(tasks), [_row(uid) for uid in uids])

    await database.writer.run(work)


def _row(uid: str) -> dict[str, object]:
    now = utc_now()
    return {
        "uid": uid,
        "organization_id": 1,
        "provider": "piapi",
        "model": "Qubico/flux1-schnell",
        "task_type": "txt2img",
        "status": TaskStatus.PENDING,
        "submission": Submission.ACCEPTED,
        "provider_task_id": f"p-{uid}",
        "attempt": 1,
        "max_attempts": 1,
        "backoff_seconds": 1.0,
        "progress": 0,
        "revision": "2.000.000000.000000.0",
        "input": {"prompt": "a cat in the rain, " * 10},
        "created_at": now,
        "updated_at": now,
        "submitted_at": now,
        "heard_at": now,
        "due_at": now + timedelta(hours=1),
        "leased": False,
        "looks": 0,
    }


def webhook(uid: str) -> bytes:
    """Return the whole HTTP request of the webhook that completes this task."""
    body = orjson.dumps(
        {
            "timestamp": 1724511853,
            "data": {
                "task_id": f"p-{uid}",
                "model": "Qubico/flux1-schnell",
                "task_type": "txt2img",
                "status": "completed",
                "config": {"service_mode": "public", "webhook_config": {"endpoint": "https://x", "secret": "s"}},
                "input": {"prompt": "a cat in the rain, " * 10},
                "output": {"image_url": f"https://img.example.com/{uid}.png", "image_urls": None},
                "meta": {
                    "created_at": "2026-01-25T07:40:08.333962391Z",
                    "started_at": "2026-01-25T07:40:09.333962391Z",
                    "ended_at": "2026-01-25T07:40:19.333962391Z",
                    "usage": {"type": "point", "frozen": 0, "consume": 20000},
                    "is_using_private_pool": False,
                },
                "detail": None,
                "logs": [],
                "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
            },
        }
    )
    secret = KeyRing(KEYS).hook_secret(uid)
    head = (
        f"POST /hooks/piapi/{uid} HTTP/1.1\r\n{PORT_HEADERS}\r\nx-webhook-secret: {secret}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
