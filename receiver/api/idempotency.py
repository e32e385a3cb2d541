"""`Idempotency-Key`: a request that comes again is answered again, and its work is done once (contracts/pi.md).

A key holds for 24 hours, for one organization and one endpoint (method and path). The rules:

- It is claimed on disk before the work begins, with a lease that is renewed for as long as the work takes.
- Answers 2xx and 4xx are kept, encrypted, and only then given. Not 401, 403, 429 and 5xx: after those the same
  request may be tried again.
- The same key with another body is 409 `idempotency_key_mismatch`, whatever became of the first.
- Of two at once one works. The other waits for its answer: in this process for an event, for another process by
  looking; after `PATIENCE_SECONDS` it is asked to come again (503).
- Who died, or gave no answer that is kept, is taken over from: at once in the same process, else when the lease ends.
  What it made is found by the claim's id (`Call.new_id`), which it was given before it was made; or else is made now.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp

from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.errors import BadRequest, Unavailable
from receiver.storage import idempotency as storage
from receiver.storage.database import Database
from receiver.storage.idempotency import (
    Claim,
    ClaimedElsewhere,
    ClaimRequest,
    ClaimResult,
    ResponseToSave,
    SavedResponse,
)
from receiver.telemetry import get_logger

log = get_logger("api.idempotency")

HEADER = "idempotency-key"
LEASE_SECONDS = 20.0
_RENEW_SECONDS = LEASE_SECONDS / 4
PATIENCE_SECONDS = 50.0
"""Longer than a lease, so that who waits for a process that died can take over."""
_FIRST_LOOK_SECONDS = 0.1
_LONGEST_LOOK_SECONDS = 1.0
_NEVER_KEPT = frozenset({401, 403, 429})
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

Work = Callable[[Claim], Awaitable[ASGIApp]]
"""Does a request's work; its errors are answers already."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request under a key: hashes of where the key holds, and of the body."""

    scope: str
    body: str

    @classmethod
    def of(cls, organization_id: int, endpoint: str, key: str, body: bytes) -> "IdempotentRequest":
        """Return what a request asks; `endpoint` is its method and path."""
        scope = "\n".join((str(organization_id), endpoint, key))
        return cls(hashlib.sha256(scope.encode()).hexdigest(), hashlib.sha256(body).hexdigest())


def read_key(headers: Headers) -> str | None:
    """Return the request's key, or None. Raises `BadRequest` unless it is 1 to 255 printable ASCII characters."""
    keys = headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or _KEY.fullmatch(keys[0]) is None:
        raise BadRequest(
            "must be given once, with 1 to 255 printable ASCII characters",
            code="invalid_idempotency_key",
            param="Idempotency-Key",
        )
    return keys[0]


class Idempotency:
    """Answers requests under their keys. One instance a process, for it knows what is under way here."""

    def __init__(self, database: Database, keyring: KeyRing) -> None:
        self._database = database
        self._keyring = keyring
        self._owner = new_id()
        self._under_way: dict[str, asyncio.Future[SavedResponse | None]] = {}

    async def once(self, asked: IdempotentRequest, work: Work) -> ASGIApp:
        """Return the answer of `work`, which is done unless it was done before.

        Raises `Conflict` for another body, `Unavailable` if another's work takes too long.
        """
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while (other := self._under_way.get(asked.scope)) is not None:
            kept = await _answer_of(other, until)
            if kept is not None:
                return self._again(kept, asked)
        kept = None
        mine = self._under_way[asked.scope] = asyncio.get_running_loop().create_future()
        try:
            found = await self._claim(asked, until)
            if isinstance(found, SavedResponse):
                kept = found
                return self._again(kept, asked)
            answer, kept = await self._do(found, asked, work)
            return answer
        finally:
            del self._under_way[asked.scope]
            mine.set_result(kept)

    async def _claim(self, asked: IdempotentRequest, until: float) -> Claim | SavedResponse:
        """Claim the key, or find its answer, as soon as no other process is at it."""
        loop, delay = asyncio.get_running_loop(), _FIRST_LOOK_SECONDS
        while True:
            found: ClaimResult = await self._database.writer.write(storage.claim, self._wanted(asked))
            if not isinstance(found, ClaimedElsewhere):
                return found
            while await self._database.read(storage.leased(asked.scope, utc_now())):
                if loop.time() >= until:
                    raise _still_at_work()
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, _LONGEST_LOOK_SECONDS)

    async def _do(self, claim: Claim, asked: IdempotentRequest, work: Work) -> tuple[ASGIApp, SavedResponse | None]:
        async with self._leased(claim):
            answer = await work(claim)
            if isinstance(answer, Response) and _is_kept(answer.status_code):
                return answer, await self._keep(claim, asked, answer)
        with suppress(Unavailable):  # then its lease runs out by itself
            await self._lease(claim, 0)
        return answer, None

    async def _keep(self, claim: Claim, asked: IdempotentRequest, answer: Response) -> SavedResponse:
        token = self._keyring.encrypt(bytes(answer.body).decode())
        kept = SavedResponse(asked.body, answer.status_code, answer.headers["content-type"], token)
        item = ResponseToSave(claim.scope, self._owner, kept)
        if not await self._database.writer.write(storage.keep, item, bounded=False):
            raise _still_at_work()
        return kept

    @asynccontextmanager
    async def _leased(self, claim: Claim) -> AsyncIterator[None]:
        renewing = asyncio.create_task(self._renew(claim))
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                await self._lease(claim, LEASE_SECONDS)
            except Unavailable as error:
                log.warning("a lease could not be renewed", reason=error.message)

    async def _lease(self, claim: Claim, seconds: float) -> None:
        until = utc_now() + timedelta(seconds=seconds)
        await self._database.writer.run(
            lambda tx: storage.move_lease(tx, claim.scope, self._owner, until), bounded=False
        )

    def _wanted(self, asked: IdempotentRequest) -> ClaimRequest:
        now = utc_now()
        return ClaimRequest(
            scope=asked.scope,
            body=asked.body,
            resource_id=new_id(),
            owner=self._owner,
            now=now,
            lease_until=now + timedelta(seconds=LEASE_SECONDS),
        )

    def _again(self, kept: SavedResponse, asked: IdempotentRequest) -> Response:
        if kept.body != asked.body:
            raise storage.mismatch()
        body = self._keyring.decrypt(kept.answer)
        return Response(
            body, kept.status, headers={"x-idempotency-replayed": "true", "content-type": kept.content_type}
        )


async def _answer_of(other: "asyncio.Future[SavedResponse | None]", until: float) -> SavedResponse | None:
    left = until - asyncio.get_running_loop().time()
    done, _ = await asyncio.wait({other}, timeout=max(0.0, left))
    if not done:
        raise _still_at_work()
    return other.result()


def _is_kept(status: int) -> bool:
    return status < 500 and status not in _NEVER_KEPT


def _still_at_work() -> Unavailable:
    return Unavailable(
        "another request with this Idempotency-Key is still at work; send the same again for its answer",
        code="idempotency_key_in_use",
    )
