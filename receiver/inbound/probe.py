"""Answers a probe of `ringback doctor`: what arrived here of a request that was sent to the public URL.

A probe takes the way of a provider's webhook, `POST /hooks/probe/{id}`, so whatever stands before the service treats it
alike. Who has a master key alone can make one: its token, good for a minute and this id only, is checked in constant
time before the body is read. The answer has no value of a header, only names and sizes, and nothing of the body but its
digest; nothing is stored.
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope

from receiver.asgi import PEER, read_body
from receiver.clock import wall_now
from receiver.domain.keyring import KeyRing
from receiver.events.after_commit import Waiting
from receiver.telemetry.request_ids import ensure_request_id

PROBE = "probe"
"""What stands in the path for the provider."""
MOST_PROBE_BYTES = 1_048_576
"""Of a probe's body; `RINGBACK_MAX_BODY_BYTES` where that is less."""
LONGEST_HOLD = 30.0
"""Seconds that an answer may be held back, as long as a long poll is."""
_LONGEST_ID = 64
_LONGEST_QUERY = 256
_TOKEN_HEADERS = (b"x-webhook-secret", b"authorization")
"""Where the token is: the first is what providers send; the other tells a dropped header from a wrong key."""


class ProbeEndpoint:
    """What answers probes. `waiting` ends those that are held when the service stops."""

    def __init__(self, keyring: KeyRing, waiting: Waiting, *, max_body_bytes: int) -> None:
        self._keyring = keyring
        self._waiting = waiting
        self._most = min(max_body_bytes, MOST_PROBE_BYTES)

    def is_ours(self, probe_id: str, scope: Scope) -> bool:
        """Return whether a request has the token of this probe. Its body is not read."""
        if len(probe_id) > _LONGEST_ID:
            return False
        now = wall_now().timestamp()
        given = {value.removeprefix(b"Bearer ").strip() for name, value in scope["headers"] if name in _TOKEN_HEADERS}
        return any(self._keyring.verify_probe(probe_id, each.decode("latin-1"), now) for each in sorted(given))

    async def answer(self, probe_id: str, scope: Scope, receive: Receive) -> dict[str, Any]:
        """Read the body; return what arrived, after the seconds that `?hold=` names. Raises `TooLarge`."""
        body = await read_body(scope, receive, self._most, inbound=True)
        if seconds := _hold(scope):
            await self._waiting.read_until(f"{PROBE} {probe_id}", seconds, _nothing, lambda _: False)
        return _seen(probe_id, scope, body)


def _seen(probe_id: str, scope: Scope, body: bytes) -> dict[str, Any]:
    client = scope.get("client")
    peer: Mapping[str, Any] = (scope.get("extensions") or {}).get(PEER) or {}
    return {
        "object": "probe",
        "id": probe_id,
        "body": {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()},
        "headers": [{"name": name.decode("latin-1"), "bytes": len(value)} for name, value in scope["headers"]],
        "client": client[0] if client else None,
        "is_from_trusted_proxy": bool(peer.get("is_trusted")),
        "scheme": scope["scheme"],
        "http_version": scope["http_version"],
        "request_id": ensure_request_id(),
    }


async def _nothing() -> Mapping[str, Any]:
    return {}


def _hold(scope: Scope) -> float:
    given = parse_qs(scope["query_string"][:_LONGEST_QUERY].decode("latin-1")).get("hold", ["0"])[0]
    return min(float(given), LONGEST_HOLD) if given.isascii() and given.replace(".", "", 1).isdecimal() else 0.0
