"""Registers callback URLs, checked and with their secrets and headers encrypted."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, cast

import orjson
from msgspec import Struct

from models import DeliveryFormat, EventType, SignatureScheme, SubscriptionKind
from receiver.clock import utc_now
from receiver.domain.audit_values import webhook_difference
from receiver.domain.custom_headers import check_headers, redacted_headers
from receiver.domain.keyring import KeyRing, MasterKeyMissing
from receiver.domain.matching import check_event_types, check_filters
from receiver.domain.representations import native_webhook
from receiver.domain.rotation import retire
from receiver.domain.signatures import check_secret, new_secret, public_key
from receiver.errors import BadRequest, LimitReached, NotFound, RingbackError
from receiver.hidden_fields import HidesFields
from receiver.organization_limits import limit_reached
from receiver.outbound.guard import AddressGuard
from receiver.outbound.hidden_values import check_given_again, check_secret_given_again
from receiver.outbound.message import MessageBuilder
from receiver.storage.audit import Actor, audit
from receiver.storage.database import Database
from receiver.storage.open_writers import EVENTS, OpenWriters
from receiver.storage.organizations import count_webhooks, is_below
from receiver.storage.subscriptions import (
    change_subscription,
    find_subscription,
    insert_subscription,
    lock_subscription,
    remove_subscription,
    with_secret,
)
from receiver.storage.transaction import Transaction
from receiver.tracking.create import Callback

Columns = dict[str, Any]

_PI_FIELDS = frozenset({"endpoint_url", "secret"})
_PLAIN = ("endpoint_url", "format", "description", "rate_limit", "max_in_flight", "ordered", "signature", "is_active")
"""Fields that are stored unchanged, once their schema has checked them."""
_MATCHED = frozenset({"is_active", "event_types", "filters"})
"""Fields that decide which events a subscription gets."""
_DEFAULTS: Mapping[str, Any] = {
    "kind": SubscriptionKind.REGISTERED,
    "format": DeliveryFormat.STANDARD,
    "filters": None,
    "headers": None,
    "description": None,
    "rate_limit": None,
    "max_in_flight": None,
    "ordered": False,
    "secret": None,
    "signature": SignatureScheme.SYMMETRIC,
    "retired_secrets": None,
    "is_active": True,
    "failing_since": None,
    "disabled_reason": None,
}
"""The columns of a webhook that is registered with nothing but its URL."""
_SHARED_SECRET_FORMATS = frozenset({DeliveryFormat.PI, DeliveryFormat.PIAPI, DeliveryFormat.REPLICATE})
_CHECK_HOLDS_SECONDS = 60.0
_MOST_CHECKED = 1024


class SavedSubscription(HidesFields, Struct, frozen=True):
    """A subscription as it is stored; `secret` is one that Ringback made, to be returned now and never again."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"secret"})

    row: Columns
    secret: str | None = None


class Subscriptions:
    """Registers subscriptions, and reads clients' own `webhook_config`."""

    def __init__(self, database: Database, guard: AddressGuard, keyring: KeyRing, messages: MessageBuilder) -> None:
        self._database = database
        self._writer = database.writer
        self._guard = guard
        self._keyring = keyring
        self._messages = messages
        self._checked: dict[str, float] = {}

    async def register(
        self, uid: str, given: Mapping[str, Any], by: Actor, *, most: int | None = None
    ) -> SavedSubscription:
        """Register a callback URL as `uid` for the actor's organization.

        `given` are the fields of `POST /api/v1/webhooks` that are not null.

        With only Pi's fields (`endpoint_url`, `secret`) the webhook behaves like one of Pi: its format is `pi`, and it
        gets `task.completed` and `task.failed`. `most` is how many webhooks the organization may have. Raises
        `BadRequest`, `LimitReached`.
        """
        if most is not None:  # asked before the look-up of the host, and again where writes wait for each other
            await self._check_number(by.organization_id, most)
        as_pi = given.keys() == _PI_FIELDS
        defaults = {**_DEFAULTS, "format": DeliveryFormat.PI} if as_pi else _DEFAULTS
        values, secret = self._columns(defaults, {"event_types": None, **given})
        await self._guard.check(given["endpoint_url"])
        row = {**defaults, **values, "uid": uid, "organization_id": by.organization_id}

        async def insert(tx: Transaction) -> LimitReached | None:
            if most is not None and not await is_below(tx, by.organization_id, count_webhooks, most):
                return _too_many(most)
            # The time is taken here, for the write may have waited, and events before it are not for this webhook.
            row["created_at"] = row["updated_at"] = utc_now()
            await insert_subscription(tx, row)
            await audit(tx, by, "webhook.create", uid, webhook_difference(None, row))
            return None

        await self._writer.run(insert, organization=by.organization_id)
        await self._matched_from_now_on()
        return SavedSubscription(row, secret)

    async def _check_number(self, organization_id: int, most: int) -> None:
        if (await self._database.read(count_webhooks(organization_id, most)))[0]["count"] >= most:
            raise _too_many(most)

    async def find_registered(self, uid: str, given: Mapping[str, Any]) -> SavedSubscription | None:
        """Return what an earlier `register` with the same arguments stored, as it is now; None if it stored nothing.

        For a request that is resumed: the client never got the response. Raises `NotFound` if it was removed since.
        """
        row = await self._writer.run(lambda tx: find_subscription(tx, uid))
        if row is None:
            return None
        if row["deleted_at"] is not None:
            raise _gone()
        return self.as_saved(row) if given.get("secret") is None else SavedSubscription(row, None)

    def as_saved(self, row: Columns) -> SavedSubscription:
        """Return a subscription with its present secret, for a client that never got the response with it."""
        secret = self._messages.newest_secret(row)
        return SavedSubscription(row, None if secret is None else _secret_to_return(secret, row["signature"]))

    async def change(self, uid: str, given: Mapping[str, Any], by: Actor) -> SavedSubscription:
        """Change the `given` fields of a subscription; None resets a field. Raises `BadRequest`, `NotFound`.

        A new secret or signature scheme replaces the old one at once; `rotate` lets both sign for some time. A new
        origin gets hidden values only if they are given again (`hidden_values`).
        """
        if not given:
            raise BadRequest("the request names no field to change: name at least one", code="no_changes")
        if "endpoint_url" in given:
            await self._guard.check(given["endpoint_url"])

        async def work(tx: Transaction) -> SavedSubscription | RingbackError:
            row = await lock_subscription(tx, uid)
            if row is None:
                return _gone()
            try:
                check_given_again(row, self._present_headers(row), given)
                values, secret = self._columns(row, given)
                check_secret_given_again(row, given, values)
            except BadRequest as refusal:
                return refusal
            return SavedSubscription(await _write(tx, row, values, by, "webhook.change"), secret)

        saved = await self._run(work)
        if given.keys() & _MATCHED:
            await self._matched_from_now_on()
        return saved

    async def rotate(self, uid: str, overlap: timedelta, secret: str | None, by: Actor) -> SavedSubscription:
        """Replace a subscription's secret by `secret` or a new one; the old one signs as well for `overlap` longer.

        Raises `BadRequest`, `NotFound`.
        """

        async def work(tx: Transaction) -> SavedSubscription | RingbackError:
            row = await lock_subscription(tx, uid)
            if row is None:
                return _gone()
            scheme = SignatureScheme(row["signature"])
            new = secret if secret is not None else new_secret(scheme)
            try:
                check_secret(new, scheme, DeliveryFormat(row["format"]))
            except BadRequest as refusal:
                return refusal
            encrypted = self._keyring.encrypt(new)
            values = {
                "secret": encrypted,
                "retired_secrets": retire(row["retired_secrets"], row["secret"], overlap, utc_now()) or None,
            }
            tx.leaves(lambda: with_secret(uid, encrypted))
            written = await _write(tx, row, values, by, "webhook.rotate")
            return SavedSubscription(written, _secret_to_return(new, scheme))

        return await self._run(work)

    async def remove(self, uid: str, by: Actor) -> None:
        """Remove a subscription, and cancel its pending deliveries."""

        async def work(tx: Transaction) -> None:
            if (row := await lock_subscription(tx, uid)) is not None:
                await remove_subscription(tx, uid, utc_now())
                await audit(tx, by, "webhook.remove", uid, webhook_difference(row, None))

        await self._writer.run(work)

    def view(self, row: Columns) -> dict[str, Any]:
        """Return a subscription as the API shows it: the names of its headers, the public half of an ed25519 key.

        Both are null if the master key that encrypted them is gone.
        """
        view = native_webhook(row)
        try:
            view["headers"] = redacted_headers(self._messages.own_headers(row)) or None
        except MasterKeyMissing:
            view["headers"] = None
        if row["signature"] == SignatureScheme.ASYMMETRIC:
            view["public_key"] = self._public_key(row)
        return view

    async def callback(self, endpoint_url: str, secret: str | None) -> Callback:
        """Return the callback of a client's own `config.webhook_config`. Raises `BadRequest` for a forbidden URL."""
        await self._check_if_not_recent(endpoint_url)
        return Callback(
            endpoint_url=endpoint_url,
            secret=self._keyring.encrypt(secret) if secret else None,
            fingerprint=self._keyring.fingerprint(endpoint_url, secret or ""),
        )

    async def replicate_callback(self, endpoint_url: str, event_types: Sequence[EventType]) -> Callback:
        """Return the callback of a client of Replicate's, which gets these events. Raises `BadRequest` as `callback`.

        It has no secret of its own: those of its organization sign (`KeyRing.callback_secrets`).
        """
        await self._check_if_not_recent(endpoint_url)
        form = DeliveryFormat.REPLICATE
        fingerprint = self._keyring.fingerprint(endpoint_url, form, *event_types)
        return Callback(endpoint_url, None, fingerprint, form, event_types)

    def _columns(self, row: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Columns, str | None]:
        """Return the columns that the `given` fields change, and the secret to return, if any. Raises `BadRequest`."""
        values = {name: given[name] for name in _PLAIN if name in given}
        form, scheme = (values.get(name, row[name]) for name in ("format", "signature"))
        _check_scheme(form, scheme, "signature" if "signature" in given else "format")
        if "event_types" in given:
            values["event_types"] = check_event_types(given["event_types"], as_pi=form == DeliveryFormat.PI)
        if "filters" in given:
            values["filters"] = check_filters(given["filters"])
        if "headers" in given:
            values["headers"] = self._encrypted_headers(row, given["headers"])
        if given.get("is_active"):
            values |= {"failing_since": None, "disabled_reason": None}
        secret = given.get("secret")
        if secret is not None or scheme != row["signature"] or row["secret"] is None:
            new = secret if secret is not None else new_secret(scheme)
            check_secret(new, scheme, DeliveryFormat(form))
            values |= {"secret": self._keyring.encrypt(new), "retired_secrets": None}
            return values, None if secret is not None else _secret_to_return(new, scheme)
        if form != row["format"]:
            self._check_present_secret(row, DeliveryFormat(form))
        return values, None

    def _check_present_secret(self, row: Mapping[str, Any], form: DeliveryFormat) -> None:
        """Raise `BadRequest` if the format that a webhook is to get does not take the secret that it has."""
        try:
            present = self._messages.newest_secret(row)
        except MasterKeyMissing:
            return
        if present is None:
            return
        try:
            check_secret(present, SignatureScheme(row["signature"]), form)
        except BadRequest as refusal:
            message = f"the webhook's present secret does not suit the format {form} ({refusal.message}): give another"
            raise BadRequest(message, param="secret") from None

    def _encrypted_headers(self, row: Mapping[str, Any], headers: Mapping[str, str] | None) -> str | None:
        checked = check_headers(headers, self._present_headers(row) or {})
        return self._keyring.encrypt(orjson.dumps(checked).decode()) if checked else None

    def _present_headers(self, row: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the headers that a webhook has; None if the master key that encrypted them is gone."""
        try:
            return self._messages.own_headers(row)
        except MasterKeyMissing:
            return None

    def _public_key(self, row: Columns) -> str | None:
        try:
            secret = self._messages.newest_secret(row)
        except MasterKeyMissing:
            return None
        return public_key(secret) if secret is not None else None

    async def _run(
        self, work: Callable[[Transaction], Awaitable[SavedSubscription | RingbackError]]
    ) -> SavedSubscription:
        # `work` returns a refusal instead of raising it, and the writer raises it here: an exception inside the
        # transaction would make the writer roll the whole batch back and try it again in halves.
        return cast(SavedSubscription, await self._writer.run(work))

    async def _matched_from_now_on(self) -> None:
        """Return when every event that is committed from now on has been matched with what was just written.

        A transaction of another process may have read the subscriptions before that, and commit its events after it.
        """
        await (await OpenWriters.of(self._database, EVENTS)).ended()

    async def _check_if_not_recent(self, url: str) -> None:
        """Check a URL unless it was checked within a minute: it may come with every create.

        Each delivery is guarded in any case.
        """
        now = asyncio.get_running_loop().time()
        if self._checked.get(url, 0.0) > now:
            return
        await self._guard.check(url)
        if len(self._checked) >= _MOST_CHECKED:
            self._checked.clear()
        self._checked[url] = now + _CHECK_HOLDS_SECONDS


async def _write(tx: Transaction, row: Columns, values: Columns, by: Actor, action: str) -> Columns:
    now = utc_now()
    await change_subscription(tx, row["uid"], values, now)
    changed = {**row, **values, "updated_at": now}
    difference = webhook_difference(row, changed)
    if any(difference):
        await audit(tx, by, action, row["uid"], difference)
    return changed


def _check_scheme(form: str, scheme: str, field: str) -> None:
    if scheme == SignatureScheme.ASYMMETRIC and form in _SHARED_SECRET_FORMATS:
        raise BadRequest(
            f"signature v1a does not work with the format {form}, which is signed with a shared secret: "
            "use v1, or one of the formats standard and cloudevents",
            param=field,
        )


def _secret_to_return(secret: str, scheme: str) -> str | None:
    """Return the secret if its owner needs it: an ed25519 key stays here, and its public half is always shown."""
    return None if scheme == SignatureScheme.ASYMMETRIC else secret


def _too_many(most: int) -> LimitReached:
    return limit_reached("webhooks", f"the organization may have {most:,} webhooks and has as many: remove one")


def _gone() -> NotFound:
    return NotFound("there is no webhook with this id", code="webhook_not_found", param="webhook_id")
