"""`Idempotency-Key`: a request that is repeated gets the same response again, and its work is done once.

A key is valid for 24 hours, for one organization and one endpoint (method and path). The rules are those of
`receiver/api/CONTRACTS.md`, "Pi", made precise:

- The key is claimed on disk before the work begins, with a lease that is renewed for as long as the work takes.
- Responses 2xx and 4xx are saved, encrypted, before they are sent. 401, 403, 429 and 5xx are not saved: after those the
  same request may be tried again. One of more than `MOST_SAVED_BYTES` is not saved either: a repeated request is
  resumed, and returns what was done as it is then. If a response cannot be saved, the work is done all the same: 504
  `outcome_unknown`.
- The same key with another body is 409 `idempotency_key_mismatch`, whatever became of the first request.
- Of two concurrent requests one does the work. The other waits for its response: if both are in this process, for an
  event, else by reading the row until it changes. After `WAIT_SECONDS` it gets 503 `idempotency_key_in_use`.
- While it is not known whether the work is on disk (`OutcomeUnknown`), the claim is kept, and other requests wait.
- An organization has a most of live keys (`receiver.api.idempotency_counts`): a new one above it is 429.
- If a process dies, or its response was not saved, the next request takes the claim over: at once in the same process,
  else when the lease has ended. That request is resumed, after the transactions that were open then have ended.

Why a request is resumed, and neither refused nor simply done again. The work and the saved response cannot be one
transaction: the work has its own transactions, and between them it may call a provider, which cannot be rolled back.
So a process can die when the task exists (and is charged) and the response is not saved. Doing the work again would
create a second task; refusing the key would leave the client without the id of the first. The way out is that the ids
of what a request creates are decided before it creates anything: the claim stores a `resource_id`, and `Call.new_id`
derives from it the same ids for every request with the key. A resumed request (`Call.is_resumed`) first looks for a
resource with that id. If it exists, the work was done, and the request returns it as it is now; if it does not, nothing
was done, and the request does it. A request that changes what exists compares the present state with the one that the
key's first request found (`Call.found`); `receiver.api.repetition` says for every endpoint how it learns what was done.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

from msgspec import Struct
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp

from receiver.api.dialects import PassingRefusal
from receiver.api.idempotency_counts import KeyCounts
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.errors import BadRequest, OutcomeUnknown, StorageUnavailable, Unavailable
from receiver.organization_limits import OrganizationLimits
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
from receiver.storage.open_writers import WORK, OpenWriters
from receiver.telemetry.log import get_logger

log = get_logger("api.idempotency")

HEADER = "idempotency-key"
LEASE_SECONDS = 20.0
_RENEW_SECONDS = LEASE_SECONDS / 4
WAIT_SECONDS = 50.0
"""Longer than a lease, so that a request which waits for a process that died can take its claim over."""
_FIRST_CHECK_SECONDS = 0.1
_LONGEST_CHECK_SECONDS = 1.0
MOST_SAVED_BYTES = 128 * 1024
"""Of a response. That of a bulk create of a thousand tasks has 64 KiB."""
_NEVER_SAVED = frozenset({401, 403, 429})
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

Work = Callable[[Claim], Awaitable[ASGIApp]]
"""Does the work of a request, and returns its response; errors are responses already, but for `OutcomeUnknown`."""


class IdempotentRequest(Struct, frozen=True):
    """A request with a key. `scope` is a hash of organization, endpoint and key; `body` is a hash of the body."""

    scope: str
    body: str
    organization_id: int

    @classmethod
    def of(cls, organization_id: int, endpoint: str, key: str, body: bytes) -> "IdempotentRequest":
        """Return the hashes of a request; `endpoint` is its method and path."""
        scope = "\n".join((str(organization_id), endpoint, key))
        return cls(hashlib.sha256(scope.encode()).hexdigest(), hashlib.sha256(body).hexdigest(), organization_id)


def read_key(headers: Headers) -> str | None:
    """Return the request's key, or None. Raises `BadRequest` unless it is 1 to 255 printable ASCII characters."""
    keys = headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or _KEY.fullmatch(keys[0]) is None:
        raise BadRequest(
            "must be sent once, with 1 to 255 printable ASCII characters",
            code="invalid_idempotency_key",
            param="Idempotency-Key",
        )
    return keys[0]


class Idempotency:
    """Does the work of each key once. Use one instance per process: it knows which requests are in progress."""

    def __init__(self, database: Database, keyring: KeyRing, limits_of: Callable[[int], OrganizationLimits]) -> None:
        self._counts = KeyCounts(database, limits_of)
        self._database = database
        self._keyring = keyring
        self._owner = new_id()
        self._in_progress: dict[str, asyncio.Future[SavedResponse | None]] = {}
        self._held: set[asyncio.Task[None]] = set()
        """The claims that are kept until it is known whether their work is on disk."""

    async def once(self, request: IdempotentRequest, work: Work) -> ASGIApp:
        """Return the saved response of the key, or do `work` and return its response.

        Raises `Conflict` for another body, `Unavailable` if the work of another request takes too long, and
        `OutcomeUnknown` if `work` does, or if its response could not be saved.
        """
        until = asyncio.get_running_loop().time() + WAIT_SECONDS
        while (other := self._in_progress.get(request.scope)) is not None:
            saved = await _response_of(other, until)
            if saved is not None:
                return self._repeat(saved, request)
        self._in_progress[request.scope] = asyncio.get_running_loop().create_future()
        saved = held = None
        try:
            found = await self._claim(request, until)
            if isinstance(found, SavedResponse):
                saved = found
                return self._repeat(saved, request)
            try:
                response, saved = await self._do(found, request, work, until)
            except OutcomeUnknown as unknown:
                if unknown.is_pending:
                    held = self._hold(found, unknown)
                raise
            return response
        finally:
            if held is None:
                self._end(request.scope, saved)
            else:
                held.add_done_callback(lambda _: self._end(request.scope, None))

    async def bind(self, claim: Claim, state: str) -> None:
        """Store the state that a request found, before its work begins. Raises `Unavailable`: it may not begin."""
        with _not_begun():
            held = await self._database.writer.run(lambda tx: storage.bind(tx, claim.scope, self._owner, state))
        if not held:
            raise _in_use()

    def _end(self, scope: str, saved: SavedResponse | None) -> None:
        self._in_progress.pop(scope).set_result(saved)

    def _hold(self, claim: Claim, unknown: OutcomeUnknown) -> "asyncio.Task[None]":
        """Keep a claim until it is known whether its work is on disk: until then nothing can be looked up."""

        async def wait() -> None:
            assert unknown.later is not None  # noqa: S101 - it is pending
            async with self._renewed(claim):
                await asyncio.wait({unknown.later})
            await self._give_back(claim)

        held = asyncio.create_task(wait())
        self._held.add(held)
        held.add_done_callback(self._held.discard)
        return held

    async def _claim(self, request: IdempotentRequest, until: float) -> Claim | SavedResponse:
        """Claim the key, or find its response, as soon as no other process holds the claim."""
        loop, delay = asyncio.get_running_loop(), _FIRST_CHECK_SECONDS
        while True:
            with _not_begun():
                found: ClaimResult = await self._database.writer.write(storage.claim, self._claim_request(request))
            if isinstance(found, Claim) and not found.is_resumed:
                self._counts.note(request.organization_id)
            if not isinstance(found, ClaimedElsewhere):
                return found
            while await self._database.read(storage.leased(request.scope, utc_now())):
                if loop.time() >= until:
                    raise _in_use()
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, _LONGEST_CHECK_SECONDS)

    async def _do(
        self, claim: Claim, request: IdempotentRequest, work: Work, until: float
    ) -> tuple[ASGIApp, SavedResponse | None]:
        try:
            async with self._renewed(claim):
                if claim.was_elsewhere:
                    await self._wait_for_writers(until)
                response = await work(claim)
                if isinstance(response, Response) and _is_saved(response):
                    return response, await self._save(claim, request, response)
        except OutcomeUnknown as unknown:
            if not unknown.is_pending:
                await self._give_back(claim)
            raise
        except Unavailable:
            await self._give_back(claim)
            raise
        await self._give_back(claim)
        return response, None

    async def _wait_for_writers(self, until: float) -> None:
        """Wait until what the process that had the claim may have written is on disk, or lost, and can be looked up.

        The server may hold its COMMIT when the process is dead. Raises `Unavailable` if that takes too long.
        """
        clock = asyncio.get_running_loop().time
        for table in WORK:
            if not await (await OpenWriters.of(self._database, table)).ended(until - clock()):
                raise _in_use()

    async def _give_back(self, claim: Claim) -> None:
        with suppress(Unavailable):  # then the lease ends by itself
            # Bounded, for the client waits: a commit that is held may have the row locked.
            await self._move_lease(claim, 0, bounded=True)

    async def _save(self, claim: Claim, request: IdempotentRequest, response: Response) -> SavedResponse:
        token = self._keyring.encrypt(bytes(response.body).decode())
        saved = SavedResponse(request.body, response.status_code, response.headers["content-type"], token)
        item = ResponseToSave(claim.scope, self._owner, saved)
        try:
            is_kept = await self._database.writer.write(storage.keep, item, bounded=False)
        except Unavailable as error:
            raise OutcomeUnknown(
                f"the request was handled, but its response could not be stored ({error.message}): repeat the same "
                "request with the same Idempotency-Key for the response"
            ) from error
        if not is_kept:
            raise _in_use()
        return saved

    @asynccontextmanager
    async def _renewed(self, claim: Claim) -> AsyncIterator[None]:
        renewing = asyncio.create_task(self._renew(claim))
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                await self._move_lease(claim, LEASE_SECONDS)
            except Unavailable as error:
                log.warning("idempotency lease not renewed", error_code=error.code, error=str(error))

    async def _move_lease(self, claim: Claim, seconds: float, *, bounded: bool = False) -> None:
        until = utc_now() + timedelta(seconds=seconds)
        await self._database.writer.run(
            lambda tx: storage.move_lease(tx, claim.scope, self._owner, until), bounded=bounded
        )

    def _claim_request(self, request: IdempotentRequest) -> ClaimRequest:
        now = utc_now()
        return ClaimRequest(
            scope=request.scope,
            body=request.body,
            resource_id=new_id(),
            owner=self._owner,
            now=now,
            lease_until=now + timedelta(seconds=LEASE_SECONDS),
            organization_id=request.organization_id,
            refusal=self._counts.refusal(request.organization_id),
        )

    def _repeat(self, saved: SavedResponse, request: IdempotentRequest) -> Response:
        if saved.body != request.body:
            raise storage.mismatch()
        body = self._keyring.decrypt(saved.answer)
        return Response(
            body, saved.status, headers={"x-idempotency-replayed": "true", "content-type": saved.content_type}
        )


async def _response_of(other: "asyncio.Future[SavedResponse | None]", until: float) -> SavedResponse | None:
    left = until - asyncio.get_running_loop().time()
    done, _ = await asyncio.wait({other}, timeout=max(0.0, left))
    if not done:
        raise _in_use()
    return other.result()


@contextmanager
def _not_begun() -> Iterator[None]:
    """Turn an unknown outcome of a write that comes before the work into an error that says so."""
    try:
        yield
    except OutcomeUnknown as error:
        message = "the database did not confirm the Idempotency-Key; the request was not begun, try again"
        raise StorageUnavailable(message) from error


def _is_saved(response: Response) -> bool:
    status = response.status_code
    return (
        status < 500
        and status not in _NEVER_SAVED
        and len(response.body) <= MOST_SAVED_BYTES
        and not isinstance(response, PassingRefusal)
    )


def _in_use() -> Unavailable:
    return Unavailable(
        "another request with this Idempotency-Key is still in progress: send the same request again for its response",
        code="idempotency_key_in_use",
    )
