"""Receives providers' webhooks: `POST /hooks/{provider}/{task_id}`, or with a token, and `POST /hooks/{provider}`.

An account of the database has an address of its own, `POST /hooks/{provider}/accounts/{account_id}`, where a provider
has one for all tasks of an account.

The secret (in a header, or as the last part of the path) is checked before the body is read and before the database is
queried, so that a forged request costs little; the provider's own signature is checked besides, when the body is there.
A 200 means that the update is on disk; for any other response the provider sends its webhook again.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope, Send

from models import ReceiptReason
from receiver.asgi import give_back, hold_body, read_body
from receiver.clock import utc_now
from receiver.domain.client_networks import client_network
from receiver.domain.content_encoding import (
    ACCEPTED,
    EncodingBroken,
    EncodingUnknown,
    content_encodings,
    is_packed,
    unpack,
)
from receiver.domain.keyring import KeyRing
from receiver.domain.log_lines import LogLines
from receiver.errors import RingbackError, TooLarge, Unavailable
from receiver.inbound.answers import answer, send_expected
from receiver.inbound.looks import Looks
from receiver.inbound.probe import PROBE, ProbeEndpoint
from receiver.inbound.secrets import InboundSecrets, attempt_of
from receiver.inbound.senders import Accounts, Senders
from receiver.large_bodies import LARGE_BYTES, read_apart, read_by_size
from receiver.providers import (
    CallbackScope,
    ChallengeAnswer,
    LookNow,
    MalformedUpdate,
    Provider,
    Providers,
    Signature,
    WebhookOutcome,
)
from receiver.storage.database import Database
from receiver.storage.leases import poll_now
from receiver.storage.receipts import insert_receipts, new_receipt, receipt_owner
from receiver.storage.transaction import Transaction
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, exceptions, inbound_received, inbound_refused
from receiver.telemetry.trace_context import TRACEPARENT, read_traceparent
from receiver.telemetry.tracing import begin_moment, record_answer
from receiver.tracking.apply import Applier
from receiver.tracking.update_batch import Arrival

log = get_logger("inbound.receive")

_ENCODING_HEADER = b"content-encoding"


class _Forged(Exception):
    """A webhook whose token is right and whose signature is wrong."""


class InboundEndpoint:
    """The ASGI endpoint of all URLs. `shared_secrets`: by provider, for tasks that were created elsewhere.

    `probes` answers those of `ringback doctor`, which stand in the place of a provider's webhooks.
    """

    def __init__(
        self,
        database: Database,
        applier: Applier,
        providers: Providers,
        accounts: Accounts,
        keyring: KeyRing,
        *,
        probes: ProbeEndpoint,
        shared_secrets: Mapping[str, str],
        max_body_bytes: int,
    ) -> None:
        self._writer = database.writer
        self._applier = applier
        self._providers = providers
        self._senders = Senders(database, providers, accounts)
        self._secrets = InboundSecrets(keyring, shared_secrets)
        self._probes = probes
        self._max_body_bytes = max_body_bytes
        self._looks = Looks(database, applier)
        self._refusals = LogLines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive one webhook."""
        parameters = scope["path_params"]
        name: str = parameters["provider"]
        task_uid: str | None = parameters.get("task_id")
        is_known = name in self._providers
        if not is_known and name == PROBE and scope["method"] == "POST" and task_uid:
            await self._answer_probe(task_uid, scope, receive, send)
        elif not is_known:
            await answer(send, 404, f"provider {name[:40]!r} does not exist")
        elif scope["method"] != "POST":
            await answer(send, 405, "use POST", ((b"allow", b"POST"),))
        else:
            # Not of its adapter, which is made when it is first needed: anyone may ask for this path.
            callback = self._providers.capabilities(name).callback
            secret = self._secrets.verified(name, callback, task_uid, scope)
            if "account_id" in parameters and callback != CallbackScope.ACCOUNT:
                await answer(send, 404, f"{name} has an address for each task, and none for an account")
            elif secret is None:
                self._count_refusal(name, scope)
                await answer(send, 401, "the webhook secret is missing or wrong")
            else:
                provider = self._providers[name]
                began, span_began = time.monotonic(), begin_moment()
                result, status, context = await self._receive(provider, task_uid, secret, scope, receive, send)
                if span_began is not None:
                    _record(scope, context, span_began, status, task_id=task_uid, provider=provider.name, result=result)
                if log.is_enabled_for(logging.DEBUG):
                    took = round((time.monotonic() - began) * 1000, 1)
                    log.debug(
                        "inbound webhook", task_id=task_uid, provider=provider.name, result=result, duration_ms=took
                    )

    async def _answer_probe(self, probe_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._probes.is_ours(probe_id, scope):
            self._count_refusal(PROBE, scope)
            await answer(send, 401, "the token of the probe is missing, wrong or too old")
            return
        try:
            found = await self._probes.answer(probe_id, scope, receive)
        except RingbackError as error:
            await answer(send, error.status, error.message, ((b"connection", b"close"),))
        else:
            await answer(send, 200, "success", data=found)

    def _count_refusal(self, provider: str, scope: Scope) -> None:
        """Count a wrong secret. Its address is never slowed: it may be the provider's, or a proxy's."""
        counted(inbound_refused, provider).inc()
        client = scope.get("client")
        network = client_network(client[0] if client else None)
        if count := self._refusals.due(network, time.monotonic()):
            log.warning("inbound webhooks refused", provider=provider, address=network, wrong_secrets=count)

    async def _receive(
        self, provider: Provider, task_uid: str | None, secret: str, scope: Scope, receive: Receive, send: Send
    ) -> tuple[str, int, str | None]:
        """Apply a webhook and answer it.

        Returns what became of it, the status of the answer, and the trace of its task (None if that is not known).
        """
        status, context, expected = 200, None, None
        try:
            result, context, expected = await self._apply(provider, task_uid, secret, scope, receive)
        except _Forged:
            await self._poll_now(task_uid)
            self._count_refusal(provider.name, scope)
            result, status = "refused", 401
            await answer(send, status, "the provider's signature is missing or wrong")
        except TooLarge as error:
            await self._poll_now(task_uid)
            result, status = _count(provider, "too large"), 413
            await answer(send, status, error.message, ((b"connection", b"close"),))
        except EncodingUnknown as error:
            await self._poll_now(task_uid)
            result, status = _count(provider, "unknown encoding"), 415
            await answer(send, status, error.message, ((b"accept-encoding", ACCEPTED.encode()),))
        except MalformedUpdate as error:
            result, status = _count(provider, "malformed"), 400
            await answer(send, status, str(error))
        except Unavailable as error:
            result, status = _count(provider, "unavailable"), error.status
            await answer(send, status, error.message, ((b"retry-after", str(error.retry_after).encode()),))
        except RingbackError as error:
            result, status = error.code, error.status
            await answer(send, status, error.message)
        except Exception as error:
            # Nothing is on disk: the provider has to send it again.
            counted(exceptions, "inbound").inc()
            log.error("inbound webhook failed", provider=provider.name, task_id=task_uid, exc_info=error)
            result, status = "failed", 500
            await answer(send, status, "internal error; nothing was stored, send it again")
        else:
            _count(provider, result)
            await (answer(send, status, "success") if expected is None else send_expected(send, expected))
        return result, status, context

    async def _apply(
        self, provider: Provider, task_uid: str | None, secret: str, scope: Scope, receive: Receive
    ) -> tuple[str, str | None, ChallengeAnswer | None]:
        """Apply a webhook; return what became of it, the trace of its task, and the answer where it is not the usual.

        Raises `_Forged`, and for a body that cannot be read what `_receive` answers.
        """
        accepted_at = time.monotonic()
        encodings = content_encodings(",".join(_header_values(scope, _ENCODING_HEADER)))
        body = await read_body(scope, receive, self._max_body_bytes, inbound=True)
        sender = await self._senders.of(provider, task_uid, scope)
        provider = sender.adapter
        attempt = attempt_of(scope) if task_uid is not None else None
        if provider.capabilities.proofs:
            signature = await provider.check_signature(body, scope["headers"])
            if signature == Signature.WRONG:
                raise _Forged
            if signature == Signature.UNCHECKED:
                return (*await self._looks.look(sender, task_uid, LookNow(), attempt), None)
        try:
            if is_packed(body, encodings):
                most, packed = self._max_body_bytes, body
                await hold_body(scope, most, inbound=True)  # what it may have when it is unpacked
                body = await read_apart(lambda: unpack(packed, encodings, most))
                give_back(scope, most - len(body), inbound=True)
            outcome, redacted = await _read(provider, body, attempt, secret)
        except (EncodingBroken, MalformedUpdate) as error:
            # What can be read of it: the bytes as they came, if nothing could be unpacked.
            readable = (error.unpacked if isinstance(error, EncodingBroken) else b"") or body
            await self._store_receipt(provider, task_uid, await _redacted(provider, readable, secret), str(error))
            raise MalformedUpdate(str(error)) from None
        if isinstance(outcome, ChallengeAnswer):
            return "answered", None, outcome
        if isinstance(outcome, LookNow):
            return (*await self._looks.look(sender, task_uid, outcome, attempt), None)
        arrival = Arrival(
            provider=provider.name,
            account_id=sender.account_id,
            organization_id=sender.organization_id,
            task_uid=task_uid,
            update=outcome,
            body=redacted,
            accepted_at=accepted_at,
        )
        applied = await self._writer.write(self._applier.apply, arrival, essential=True)
        return "stored", applied.trace_context, None

    async def _store_receipt(self, provider: Provider, task_uid: str | None, body: str, message: str) -> None:
        """Store a body that cannot be parsed as a receipt, and poll the task now: the body may have been its end."""
        now = utc_now()

        async def work(tx: Transaction) -> None:
            receipt = new_receipt(
                organization_id=await receipt_owner(tx, task_uid),
                provider=provider.name,
                task_uid=task_uid,
                provider_task_id=None,
                reason=ReceiptReason.MALFORMED,
                message=message,
                body=body,
                now=now,
            )
            await insert_receipts(tx, [receipt])
            if task_uid is not None:
                await poll_now(tx, [task_uid], now)

        await self._writer.run(work)
        self._applier.after_commit.due.set(now)

    async def _poll_now(self, task_uid: str | None) -> None:
        """Poll a task now whose webhook could not be read. Best effort: it is polled later in any case."""
        if task_uid is None:
            return
        with contextlib.suppress(Unavailable):
            await self._looks.poll_now(task_uid)


async def _read(
    provider: Provider, body: bytes, attempt: int | None, secret: str
) -> tuple[WebhookOutcome, Callable[[], str]]:
    """Return what the webhook comes to, and what returns the body without secrets, which only a receipt needs.

    Raises `MalformedUpdate`.
    """

    def redact() -> str:
        return provider.redact(body, hidden=secret)

    if len(body) <= LARGE_BYTES:
        return provider.parse_webhook(body, attempt=attempt, hidden=secret), redact

    def read() -> tuple[WebhookOutcome, str]:
        return provider.parse_webhook(body, attempt=attempt, hidden=secret), redact()

    outcome, redacted = await read_apart(read)
    return outcome, lambda: redacted


async def _redacted(provider: Provider, body: bytes, secret: str) -> str:
    return await read_by_size(len(body), lambda: provider.redact(body, hidden=secret))


def _record(scope: Scope, context: str | None, began: int, status: int, **ids: str | None) -> None:
    """Record the span of a webhook that was answered, linked to the trace in which the provider sent it."""
    given = read_traceparent(_header_values(scope, TRACEPARENT.encode()))
    record_answer("receive webhook", context, [] if given is None else [given], began, status, **ids)


def _count(provider: Provider, result: str) -> str:
    counted(inbound_received, provider.name, result).inc()
    return result


def _header_values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
