"""One request of the fuzz: everything about it is decided by the seed, its number, and the ids that exist."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
from starlette.routing import Route

from receiver.api.passthrough import FORWARDED_GETS, FORWARDED_POSTS, UPLOAD_PATH
from receiver.api.routes import routes
from receiver.domain.ids import new_id
from tests.fuzz.values import NUMBERS, TEXTS, URLS, body_of

ROUTES = [route for route in routes() if isinstance(route, Route)]
_NEVER_ACCEPTED = {
    "POST /hooks/{provider}/accounts/{account_id}",  # PiAPI has an address for each task
    *(f"{method} {path}" for method in ("GET", "POST") for path in (*FORWARDED_GETS, *FORWARDED_POSTS, UPLOAD_PATH)),
    "POST /api/v1/tasks/adopt",
    "POST /api/v1/tasks/wait",
    "POST /api/v1/bulk-actions/{bulk_action_id}/cancel",
}
"""The provider on loopback refuses what these pass on or ask it for; a wait for tasks that exist takes its time, and a
bulk action ends at once."""
ACCEPTABLE = {
    f"{method} {route.path}" for route in ROUTES for method in route.methods or {"POST"} if method != "HEAD"
} - _NEVER_ACCEPTED
"""The routes of which one request at least must be accepted."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "get", "X" * 40)
_QUERY_NAMES = (
    *("limit", "cursor", "status", "model", "task_type", "run_id", "created_after", "created_before", "metadata[a]"),
    *("reason", "provider", "received_after", "received_before"),
    *("metadata", "metadata[", "metadata[]", "[a]", "[]", "event_types", "after", "task_id", "event_id", "webhook_id"),
    *("since", "fields", "include", "expand", "page", "page_size", "size", "start_time", "end_time", "attempt", ""),
    *("limit[a]", "cursor[x]", "wait_for_completion", "timeout_seconds", "%00", "%ff", "\u00e9"),
)
_SEGMENTS = (
    *("%00", "%ff%fe", "..", ".", "%2e%2e", "a%2Fb", "%2F", "%25", "%", "%zz", "x" * 2000, "%F0%9F%98%80", "events"),
    *("cancel", "1", "-1", "null", "a%20b", "%0d%0aX:%20y", "%1b[31m", "00000000-0000-0000-0000-000000000000"),
)
_PLAIN = 0.2
"""The share of requests in which nothing is odd: they show that every route is reached, and not only refused."""
_STEP = {"id": "a", "action": "flux:txt2img", "input": {"prompt": "x"}, "retry": {"max_attempts": 2}}
TASK: Mapping[str, Any] = {
    "model": "Qubico/flux1-schnell",
    "task_type": "txt2img",
    "input": {"prompt": "a cat", "sandbox": {"outcome": "never", "webhook": "lost"}},
    "config": {"webhook_config": {"endpoint": URLS[0], "secret": "a-client-secret"}, "service_mode": "public"},
    "metadata": {"order": "7"},
    "retry": {"max_attempts": 2, "backoff_seconds": 0},
}
VALID: Mapping[str, Any] = {
    "/api/v1/task": TASK,
    "/api/v1/tasks": {"tasks": [TASK, {"model": "m", "task_type": "t", "input": {}}]},
    "/api/v1/tasks/cancel": {"model": "no-such-model", "created_before": 1700000000, "metadata": {"a": "b"}},
    "/api/v1/tasks/retry": {"status": "failed", "dry_run": True},
    "/api/v1/tasks/refresh": {"model": "no-such-model"},
    "/api/v1/tasks/wait": {"task_ids": ["no-such-task"], "mode": "any", "timeout_seconds": 1},
    "/api/v1/tasks/adopt": {"provider_task_id": "p-1", "provider": "piapi", "metadata": {}},
    "/api/v1/webhooks": {
        "endpoint_url": URLS[0],
        "event_types": ["task.*"],
        "filters": {"model": ["flux*"], "metadata": {"a": "b"}},
        "headers": {"x-a": "b"},
        "description": "d",
        "rate_limit": 5.0,
        "max_in_flight": 2,
        "format": "standard",
        "ordered": True,
    },
    "/api/v1/webhooks/{webhook_id}": {"description": "e", "event_types": None, "is_active": True},
    "/api/v1/webhooks/{webhook_id}/rotate-secret": {"overlap_seconds": 5.0},
    "/api/v1/webhooks/{webhook_id}/recover": {"since": "2026-01-01T00:00:00Z"},
    "/api/v1/webhooks/{webhook_id}/replay": {"since": 1700000000, "until": None, "event_types": ["task.completed"]},
    "/api/v1/organizations": {"name": "o", "limits": {"webhooks": 5}, "owns_provider_account": False, "key_name": "k"},
    "/api/v1/organizations/{organization_id}": {"limits": {"webhooks": 7, "streams": None}},
    "/api/v1/providers/{provider}/accounts": {
        "name": "n",
        "credentials": {"api_key": "k"},
        "base_url": "http://127.0.0.1:9",
        "calls_per_second": 5.0,
        "concurrency": 2,
        "is_default": False,
        "everyone": False,
        "organization_id": None,
    },
    "/api/v1/providers/{provider}/accounts/{account}": {"credentials": {"api_key": "l"}, "concurrency": 3},
    "/api/v1/master-keys/rotate": {"cursor": "0.7", "dry_run": True},
    "/api/v1/keys": {"name": "k", "scope": "read", "rate_limit": 10.0},
    "/api/v1/runs": {
        "steps": [_STEP, {**_STEP, "id": "b", "depends_on": ["a"], "input_map": {"u": "$steps.a.result.image_url"}}],
        "metadata": {"a": 1},
    },
    "/v1/predictions": {
        "version": "piapi:Qubico/flux1-schnell@txt2img",
        "input": {"prompt": "a cat"},
        "webhook": URLS[0],
        "webhook_events_filter": ["start", "completed"],
    },
    "/v1/models/{owner}/{name}/predictions": {"input": {"prompt": "a cat"}, "webhook_completed": URLS[0]},
    "/v1/deployments/{owner}/{name}/predictions": {"input": {}},
    "/v1/chat/completions": {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]},
}
_NAMES: Mapping[str, Sequence[str]] = {
    "owner": ("piapi:Qubico", "piapi:", "acme"),
    "name": ("flux1-schnell@txt2img", "kling", "a%2Fb@c"),
    "version_id": ("39ed",),
}
"""Parameters of paths that are names of models."""
_QUERIES = {"DELETE /api/v1/tasks": b"created_before=1700000000&model=all"}
"""What a plain request needs in its query."""
NOTICE = {
    "timestamp": 1700000000,
    "data": {
        "task_id": "p-1",
        "model": "Qubico/flux1-schnell",
        "task_type": "txt2img",
        "status": "processing",
        "config": {"webhook_config": {"endpoint": URLS[0], "secret": "x"}},
        "input": {"prompt": "x"},
        "output": {"image_url": "https://127.0.0.1/a.png", "percent": 5},
        "meta": {"created_at": "2026-01-01T00:00:00Z", "usage": {"frozen": 1}},
        "logs": ["a"],
        "error": {"code": 0, "message": "", "raw_message": "", "detail": None},
    },
}


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids that exist, by the name of the path parameter: the caller's own, and those of another organization."""

    own: dict[str, list[str]]
    other: Mapping[str, Sequence[str]]
    secrets: dict[str, str]
    """The webhook secret of each task; that of "" is for webhooks that name no task."""


@dataclass(frozen=True, slots=True)
class FuzzRequest:
    """A request as a server hands it to the application. `key` names whose key it has.

    `route` is the method and pattern that it was made for, if the method is one of that route.
    """

    method: str
    raw_path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    key: str
    client: str
    route: str = ""

    def __str__(self) -> str:
        body = self.body if len(self.body) <= 400 else self.body[:400] + b"..."
        headers = [header for header in self.headers if header[0] not in (b"x-api-key", b"authorization")]
        asked = f"{self.method} {self.raw_path[:300]}?{self.query[:300].decode('latin-1')} key={self.key}"
        return f"{asked} {headers[:12]} {body!r} ({len(self.body)} bytes)"


def make_request(seed: int, number: int, ids: Ids, keys: Mapping[str, str]) -> FuzzRequest:
    """Return the request with this number. `keys` are API keys by whose they are."""
    rng = random.Random(f"{seed} {number}")
    route = rng.choice(ROUTES)
    is_plain = rng.random() < _PLAIN
    is_known = is_plain or rng.random() < 0.93
    method = rng.choice(sorted(route.methods or {"POST"})) if is_known else rng.choice(METHODS)
    path, task = _plain_path(rng, route.path, ids) if is_plain else _path(rng, route.path, ids)
    body, described = b"", list[tuple[bytes, bytes]]()
    is_hook = route.path.startswith("/hooks")
    if method not in ("GET", "HEAD") or (not is_plain and rng.random() < 0.03):
        valid = NOTICE if is_hook else VALID.get(f"{method} {route.path}", VALID.get(route.path, {}))
        body, described = (orjson.dumps(valid), []) if is_plain else body_of(rng, valid)
    whose, headers = ("admin", [(b"x-api-key", keys["admin"].encode())]) if is_plain else _key(rng, keys)
    headers += described + ([(b"host", b"ringback.test")] if is_plain else _headers(rng))
    if is_hook and (is_plain or rng.random() < 0.8):
        headers.append((b"x-webhook-secret", ids.secrets.get(task, "wrong").encode()))
    headers.append((b"content-length", str(len(body)).encode()))
    client = f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}"
    query = _QUERIES.get(f"{method} {route.path}", b"") if is_plain else _query(rng)
    of = f"{method} {route.path}" if is_known else ""
    return FuzzRequest(method, path, query, tuple(headers), body, whose, client, of)


def _plain_path(rng: random.Random, pattern: str, ids: Ids) -> tuple[str, str]:
    """Return the path with the caller's own ids, and the task's."""
    path, task = pattern, ""
    for name in re.findall(r"{(\w+)}", pattern):
        known = {"provider": "piapi", "token": ids.secrets.get(task, "wrong")}
        value = known[name] if name in known else rng.choice(_NAMES.get(name) or ids.own[name])
        path = path.replace(f"{{{name}}}", value)
        task = value if name == "task_id" else task
    return path, task


def _path(rng: random.Random, pattern: str, ids: Ids) -> tuple[str, str]:
    task = ""
    segments = []
    for segment in pattern.split("/")[1:]:
        if segment.startswith("{"):
            name = segment.strip("{}")
            segment = _parameter(rng, name, ids)
            task = segment if name == "task_id" else task
        elif rng.random() < 0.01:
            segment = rng.choice(_SEGMENTS)
        segments.append(segment)
    slash = "//" if rng.random() < 0.01 else "/"
    return "/" + slash.join(segments) + ("/" if rng.random() < 0.02 else ""), task


def _parameter(rng: random.Random, name: str, ids: Ids) -> str:
    if name == "provider":
        return "piapi" if rng.random() < 0.95 else rng.choice(_SEGMENTS)
    draw = rng.random()
    if draw < 0.6 and (own := _NAMES.get(name) or ids.own.get(name)):
        return rng.choice(own)
    if draw < 0.75 and ids.other.get(name):
        return rng.choice(ids.other[name])
    return new_id() if draw < 0.85 else rng.choice(_SEGMENTS)


def _query(rng: random.Random) -> bytes:
    if rng.random() < 0.6:
        return b""
    draw = rng.random()
    if draw < 0.02:
        return rng.choice(
            (b"&" * 3000, b"a=1&" * 200, b"metadata[a]=x&" * 40, b"%" * 500, b"x" * 20_000, b"=&=&=", b"a[b")
        )
    pairs = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 12))):
        name, value = rng.choice(_QUERY_NAMES), str(rng.choice((*TEXTS, *NUMBERS, *URLS, "200", "5", "true", "1")))
        if name == "wait_for_completion":
            value = "false"  # a request that waits takes its time
        pairs.append(f"{name}={quote(value.encode('utf-8', 'replace')) if rng.random() < 0.9 else '%zz%ff'}")
    return "&".join(pairs).encode("utf-8", "replace")


def _key(rng: random.Random, keys: Mapping[str, str]) -> tuple[str, list[tuple[bytes, bytes]]]:
    whose = rng.choice(("write",) * 8 + ("admin",) * 5 + ("read",) * 3 + ("none", "wrong", "odd"))
    if whose == "none":
        return whose, []
    if whose == "odd":
        odd = rng.choice(
            (b"", b"Bearer", b"Bearer ", b"Basic eDp5", b"\xff\xfe", b"x" * 4000, b"a b", b"Bearer a, Bearer b")
        )
        return whose, [(rng.choice((b"x-api-key", b"authorization")), odd)]
    key = keys.get(whose, "rb_wrong_0123456789abcdef0123456789").encode()
    header = (b"x-api-key", key) if rng.random() < 0.7 else (b"authorization", b"Bearer " + key)
    return whose, [header] * (2 if rng.random() < 0.02 else 1)


def _headers(rng: random.Random) -> list[tuple[bytes, bytes]]:
    found = [(b"host", b"ringback.test")]
    if rng.random() < 0.25:
        key = rng.choice((b"k%d" % rng.randrange(200), b"", b"\xff", b"x" * 256, b"a\tb", b" ", b"x" * 255))
        found += [(b"idempotency-key", key)] * (2 if rng.random() < 0.05 else 1)
    if rng.random() < 0.1:
        found.append((b"accept", rng.choice((b"text/event-stream", b"*/*", b"", b"\xff", b"," * 2000))))
    if rng.random() < 0.1:
        found.append(
            (b"last-event-id", rng.choice((b"0", b"1", b"5", b"-1", b"9" * 18, b"9" * 30, b"\xc2\xb2", b"x" * 3000)))
        )
    if rng.random() < 0.1:
        found.append(
            (
                b"content-type",
                rng.choice((b"application/json", b"text/xml", b"multipart/form-data; boundary=x", b"\xff")),
            )
        )
    if rng.random() < 0.02:
        found += [(b"x-many-%d" % number, rng.randbytes(20)) for number in range(80)]
    return found
