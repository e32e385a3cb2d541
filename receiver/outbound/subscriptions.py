"""Who is told: registering callback URLs, checked and with their secrets encrypted."""

import asyncio
from collections.abc import Sequence
from typing import Any

from models import TASK_EVENTS, DeliveryFormat, EventType, SubscriptionKind
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.domain.signatures import check_secret, new_secret
from receiver.errors import BadRequest
from receiver.outbound.guard import AddressGuard
from receiver.storage.subscriptions import change_subscription, insert_subscription, remove_subscription
from receiver.storage.writer import Writer
from receiver.tracking.create import Callback

ENDS = (EventType.TASK_COMPLETED, EventType.TASK_FAILED, EventType.TASK_CANCELLED)
PI_EVENTS = {"job.completed": EventType.TASK_COMPLETED, "job.failed": EventType.TASK_FAILED}
"""Pi's names for events, and ours."""
_CHECK_HOLDS_SECONDS = 60.0
_MOST_CHECKED = 1024


class Subscriptions:
    """Registers subscriptions, and reads clients' own `webhook_config`."""

    def __init__(self, writer: Writer, guard: AddressGuard, keyring: KeyRing) -> None:
        self._writer = writer
        self._guard = guard
        self._keyring = keyring
        self._checked: dict[str, float] = {}

    async def register(
        self,
        organization_id: int,
        *,
        endpoint_url: str,
        secret: str | None = None,
        form: DeliveryFormat | None = None,
        event_types: Sequence[str] | None = None,
        description: str | None = None,
    ) -> tuple[dict[str, Any], str | None]:
        """Register a callback URL; return its row, and the secret if Ringback made it.

        With Pi's fields alone (`endpoint_url`, `secret`) it is told as Pi tells: format `pi`, and of
        `task.completed` and `task.failed`. Raises `BadRequest`.
        """
        await self._guard.check(endpoint_url)
        made = None
        if secret is None:
            secret = made = new_secret()
        check_secret(secret)
        as_pi = form is None and event_types is None and made is None
        now = utc_now()
        row = {
            "uid": new_id(),
            "organization_id": organization_id,
            "kind": SubscriptionKind.REGISTERED,
            "endpoint_url": endpoint_url,
            "format": DeliveryFormat.PI if as_pi else form or DeliveryFormat.STANDARD,
            "event_types": check_event_types(event_types, as_pi=as_pi or form == DeliveryFormat.PI),
            "description": description,
            "secret": self._keyring.encrypt(secret),
            "is_active": True,
            "created_at": now,
            "updated_at": now,
        }
        await self._writer.run(lambda tx: insert_subscription(tx, row))
        return row, made

    async def change(self, row: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """Change a subscription's fields; return its row as it is then. Raises `BadRequest`."""
        if not values:
            raise BadRequest("nothing to change was given", code="no_changes")
        if "endpoint_url" in values:
            await self._guard.check(values["endpoint_url"])
        if "event_types" in values:
            values["event_types"] = check_event_types(values["event_types"], as_pi=False)
        if "secret" in values:
            check_secret(values["secret"])
            values["secret"] = self._keyring.encrypt(values["secret"])
        now = utc_now()
        await self._writer.run(lambda tx: change_subscription(tx, row["uid"], values, now))
        return {**row, **values, "updated_at": now}

    async def remove(self, uid: str) -> None:
        """Remove a subscription; what waits for it is cancelled."""
        await self._writer.run(lambda tx: remove_subscription(tx, uid, utc_now()))

    async def callback(self, endpoint_url: str, secret: str | None) -> Callback:
        """Read a client's own `config.webhook_config`. Raises `BadRequest` for a forbidden URL."""
        await self._check_once(endpoint_url)
        return Callback(
            endpoint_url=endpoint_url,
            secret=self._keyring.encrypt(secret) if secret else None,
            fingerprint=self._keyring.fingerprint(endpoint_url, secret or ""),
        )

    async def _check_once(self, url: str) -> None:
        """Check a URL that comes with every create only now and then; each delivery is guarded in any case."""
        now = asyncio.get_running_loop().time()
        if self._checked.get(url, 0.0) > now:
            return
        await self._guard.check(url)
        if len(self._checked) >= _MOST_CHECKED:
            self._checked.clear()
        self._checked[url] = now + _CHECK_HOLDS_SECONDS


def check_event_types(wanted: Sequence[str] | None, *, as_pi: bool) -> list[str]:
    """Return the event types that a list asks for; `task.*` means all of a task's, and Pi's names are known.

    None means the ends of tasks (for Pi: completed and failed). Raises `BadRequest` that says what is allowed.
    """
    if wanted is None:
        return list(PI_EVENTS.values() if as_pi else ENDS)
    known: set[str] = set()
    for name in wanted:
        if name == "task.*":
            known.update(TASK_EVENTS)
        elif name in PI_EVENTS:
            known.add(PI_EVENTS[name])
        elif name in set(EventType):
            known.add(name)
        else:
            allowed = ", ".join([*EventType, "task.*", *PI_EVENTS])
            raise BadRequest(f"there is no event type {name[:60]!r}; allowed are {allowed}", param="event_types")
    if not known:
        raise BadRequest("name at least one event type, or leave the list out", param="event_types")
    return sorted(known)
