"""Receives providers' webhooks: `POST /hooks/{provider}/{task_id}` and `POST /hooks/{provider}`.

The secret is checked before the body is read and before the database is queried, so that a forged request costs
little. A 200 means that the update is on disk; for any other response the provider sends its webhook again.
"""

import hmac
from collections.abc import Mapping

import orjson
from starlette.types import Receive, Scope, Send

from models import ReceiptReason
from receiver.asgi import read_body
from receiver.clock import utc_now
from receiver.domain.ids import is_id
from receiver.domain.keyring import KeyRing
from receiver.domain.redaction import REDACTED
from receiver.errors import RingbackError, TooLarge, Unavailable
from receiver.providers import MalformedUpdate, Provider
from receiver.storage.leases import poll_now
from receiver.storage.receipts import insert_receipts, new_receipt
from receiver.storage.transaction import Transaction
from receiver.storage.writer import Writer
from receiver.telemetry import counted, get_logger, inbound_received, inbound_refused
from receiver.tracking.apply import Applier
from receiver.tracking.update_batch import Arrival

log = get_logger("inbound.receive")

_SECRET_HEADER = b"x-webhook-secret"
_JSON = (b"content-type", b"application/json")


class InboundEndpoint:
    """The ASGI endpoint of both URLs. `shared_secrets`: by provider, for tasks that were created elsewhere."""

    def __init__(
        self,
        writer: Writer,
        applier: Applier,
        providers: Mapping[str, Provider],
        keyring: KeyRing,
        *,
        shared_secrets: Mapping[str, str],
        max_body_bytes: int,
    ) -> None:
        self._writer = writer
        self._applier = applier
        self._providers = providers
        self._keyring = keyring
        self._shared_secrets = shared_secrets
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive one webhook."""
        parameters = scope["path_params"]
        provider = self._providers.get(parameters["provider"])
        task_uid: str | None = parameters.get("task_id")
        if provider is None:
            await _answer(send, 404, f"provider {parameters['provider'][:40]!r} does not exist")
        elif scope["method"] != "POST":
            await _answer(send, 405, "use POST", ((b"allow", b"POST"),))
        elif not self._is_authentic(provider.name, task_uid, _header(scope, _SECRET_HEADER)):
            counted(inbound_refused, provider.name).inc()
            await _answer(send, 401, "the webhook secret is missing or wrong")
        else:
            await self._receive(provider, task_uid, scope, receive, send)

    def _is_authentic(self, provider: str, task_uid: str | None, presented: str) -> bool:
        if task_uid is not None:
            return is_id(task_uid) and self._keyring.verify_hook(task_uid, presented)
        shared = self._shared_secrets.get(provider)
        return shared is not None and hmac.compare_digest(presented.encode(), shared.encode())

    async def _receive(
        self, provider: Provider, task_uid: str | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            body = await read_body(scope, receive, self._max_body_bytes)
            # The provider may echo the secret anywhere in the body: it is removed before anything else reads it.
            body = body.replace(_header(scope, _SECRET_HEADER).encode(), REDACTED.encode())
            await self._apply(provider, task_uid, body, _attempt(scope))
        except TooLarge as error:
            await self._poll_now(task_uid)
            counted(inbound_received, provider.name, "too large").inc()
            await _answer(send, 413, error.message, ((b"connection", b"close"),))
        except MalformedUpdate as error:
            counted(inbound_received, provider.name, "malformed").inc()
            await _answer(send, 400, str(error))
        except Unavailable as error:
            counted(inbound_received, provider.name, "unavailable").inc()
            await _answer(send, 503, error.message, ((b"retry-after", str(error.retry_after).encode()),))
        except RingbackError as error:
            await _answer(send, error.status, error.message)
        except Exception as error:
            # Nothing is on disk: the provider has to send it again.
            log.error("inbound webhook failed", provider=provider.name, task_id=task_uid, exc_info=error)
            await _answer(send, 500, "internal error; nothing was stored, send it again")
        else:
            counted(inbound_received, provider.name, "stored").inc()
            await _answer(send, 200, "success")

    async def _apply(self, provider: Provider, task_uid: str | None, body: bytes, attempt: int | None) -> None:
        try:
            update = provider.parse_webhook(body, attempt=attempt if task_uid is not None else None)
        except MalformedUpdate as error:
            await self._store_receipt(provider, task_uid, body, str(error))
            raise
        arrival = Arrival(provider=provider.name, task_uid=task_uid, update=update, body=lambda: provider.redact(body))
        await self._writer.write(self._applier.apply, arrival)

    async def _store_receipt(self, provider: Provider, task_uid: str | None, body: bytes, message: str) -> None:
        """Store a body that cannot be parsed as a receipt, and poll the task now: the body may have been its end."""
        now = utc_now()
        receipt = new_receipt(
            provider=provider.name,
            task_uid=task_uid,
            provider_task_id=None,
            reason=ReceiptReason.MALFORMED,
            message=message,
            body=provider.redact(body),
            now=now,
        )

        async def work(tx: Transaction) -> None:
            await insert_receipts(tx, [receipt])
            if task_uid is not None:
                await poll_now(tx, task_uid, now)

        await self._writer.run(work)
        self._applier.after_commit.due.set(now)

    async def _poll_now(self, task_uid: str | None) -> None:
        """Poll a task now whose webhook could not be read. Best effort: it is polled later in any case."""
        if task_uid is None:
            return
        now = utc_now()
        try:
            await self._writer.run(lambda tx: poll_now(tx, task_uid, now))
        except Unavailable:
            return
        self._applier.after_commit.due.set(now)


def _header(scope: Scope, wanted: bytes) -> str:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value.decode("latin-1"))
    return ""


def _attempt(scope: Scope) -> int:
    """Return the attempt in the URL that the provider was given: `?attempt=2`. The first attempt has no parameter."""
    query: bytes = scope["query_string"]
    number = query.removeprefix(b"attempt=")
    return int(number) if query.startswith(b"attempt=") and number.isdigit() and len(number) < 4 else 1


async def _answer(send: Send, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = orjson.dumps({"code": status, "message": message})
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})
