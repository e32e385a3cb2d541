"""The bodies that take longest to read, each as large as it may be: `--worst` asks each of them once."""

from collections.abc import Iterator

import orjson

from tests.fuzz.requests import FuzzRequest, Ids
from tests.fuzz.service import ADMIN_KEY

MIB = 1024 * 1024


def worst_requests(ids: Ids) -> Iterator[tuple[str, FuzzRequest]]:
    """Yield each with a name of what is in it."""
    task = ids.own["task_id"][0]
    for name, body in _outputs():
        secret = (b"x-webhook-secret", ids.secrets[task].encode())
        yield f"webhook: {name}", FuzzRequest("POST", f"/hooks/piapi/{task}", b"", (secret,), body, "hook", "10.0.0.1")
    key = (b"x-api-key", ADMIN_KEY.encode())
    for path, name, body in _creates():
        headers = (key, (b"idempotency-key", name.encode()))
        yield f"{path}: {name}", FuzzRequest("POST", path, b"", headers, body, "admin", "10.0.0.1")
    for path in ("/api/v1/tasks", "/api/v1/events", "/api/v1/runs", "/api/open/tasks/histories"):
        yield f"list {path}", FuzzRequest("GET", path, b"limit=200", (key,), b"", "admin", "10.0.0.1")


def _notice(output: bytes) -> bytes:
    return b'{"task_id":"p-1","status":"processing","output":%b}' % output


def _filled(begin: bytes, part: bytes, end: bytes, size: int, most: int = 10**9) -> bytes:
    return begin + part * min(most, (size - len(begin) - len(end)) // len(part)) + end


def _outputs() -> Iterator[tuple[str, bytes]]:
    most = MIB - 100
    values = 99_000
    yield "numbers", _notice(_filled(b"[", b"1,", b"1]", most, values))
    yield "too many numbers", _notice(_filled(b"[", b"1,", b"1]", most))
    yield "objects", _notice(_filled(b"[", b'{"a":1},', b"1]", most, values // 2))
    yield "URLs", _notice(orjson.dumps([f"https://a.io/{number}.png" for number in range(37_000)]))
    yield "members", _notice(orjson.dumps({f"k{number}": number for number in range(60_000)}))
    yield "quoted JSON", _notice(_filled(b"[", b'"[http",', b"1]", most, values))
    yield "no URL after all", _notice(_filled(b"[", b'"http://' + b"a" * 8000 + b' b",', b"1]", most))
    yield "escapes", _notice(_filled(b'"', b"\\u00e9", b'"', most))
    yield "broken escapes", _notice(_filled(b'"', b"\\x", b'"', most))
    yield "surrogates", _notice(_filled(b'"', b"\\ud800", b'"', most))
    yield "control characters", _notice(_filled(b'"', b"\x01", b'"', most))
    yield "words", _notice(_filled(b"[", b"+1,", b"1]", most, values))
    yield "depth", _notice(_filled(b"", b"[", b"", most))
    yield "secrets", _notice(_filled(b'"webhook_config ', b"secret=a ", b'"', most))
    yield "no end of texts", _notice(_filled(b'"', b'","', b"", most))


def _creates() -> Iterator[tuple[str, str, bytes]]:
    most = 16 * MIB - 100
    begin = b'{"model":"m","task_type":"t","input":{"a":'
    one, bulk, run = "/api/v1/task", "/api/v1/tasks", "/api/v1/runs"
    yield one, "a picture", _filled(begin + b'"', b"a", b'"}}', most)
    yield one, "escapes", _filled(begin + b'"', b"\\u00e9", b'"}}', most)
    yield one, "numbers", _filled(begin + b"[", b"1,", b"1]}}", most, 199_000)
    yield one, "too many numbers", _filled(begin + b"[", b"1,", b"1]}}", most)
    yield one, "objects", _filled(begin + b"[", b'{"a":1},', b"1]}}", most, 99_000)
    yield one, "unknown fields", b"{" + b",".join(b'"k%d":1' % number for number in range(190_000)) + b"}"
    yield bulk, "tasks", b'{"tasks":[%b]}' % b",".join([begin + b'"' + b"a" * 16_000 + b'"}}'] * 1000)
    yield bulk, "faults", b'{"tasks":[%b]}' % b",".join([b'{"model":' + b"[1," * 40 + b"1" + b"]" * 40 + b"}"] * 1000)
    yield bulk, "members", b'{"tasks":[%b]}' % b",".join([begin + b"[" + b"1," * 180 + b"1]}}"] * 1000)
    yield bulk, "text", b'{"tasks":"%b"}' % (b"," * (most - 20))
    yield run, "steps", b'{"steps":[%b]}' % b",".join([b'{"id":"a","action":"x","input":{}}'] * 10_000)
    yield run, "a picture", _filled(b'{"steps":[{"id":"a","action":"flux:t","input":{"a":"', b"a", b'"}}]}', most // 2)
    hook = "/api/v1/webhooks"
    yield (
        hook,
        "event types",
        _filled(b'{"endpoint_url":"http://127.0.0.1:9/","event_types":[', b"1,", b"1]}", MIB, 99_000),
    )
    yield (
        hook,
        "filters",
        _filled(b'{"endpoint_url":"http://127.0.0.1:9/","filters":{"model":[', b'"a*",', b'"a"]}}', MIB, 99_000),
    )
    yield f"{hook}/x/recover", "digits", b'{"since":"%b"}' % (b"9" * (most - 20))
