"""JSON values and bodies: valid ones, and what a careless or hostile client makes of them. All drawn from one `Random`.

A text with a URL in it is never changed, and no other URLs are made than those listed here, whose hosts are addresses:
so nothing is ever looked up, and nothing outside of loopback is called, whatever the service does with them.
"""

import codecs
import gzip
import random
import zlib
from typing import Any

import orjson

URLS = (
    "http://127.0.0.1:9/hook",
    "http://127.0.0.1:9/hook?a=%2F&b=..",
    "https://127.0.0.1:9",
    "http://[::1]:9/",
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data",
    "http://0.0.0.0:9/",
    "http://127.0.0.1:99999/",
    "http://user:pass@127.0.0.1:9/",
    "ftp://127.0.0.1/",
    "http://",
    "//127.0.0.1",
)
TEXTS = (
    *(
        "",
        " ",
        "x",
        "null",
        "0",
        "-1",
        "task.completed",
        "*",
        "flux",
        "default",
        "\0",
        "a\0b",
        "\ud83d\ude00",
        "\u202e",
    ),
    *(
        "é" * 50,
        "x" * 300,
        "x" * 5000,
        "%00",
        "..",
        "../../etc",
        "{}",
        "[",
        '"',
        "\\",
        "\x1b[31m",
        "' OR 1=1 --",
        "${a}",
    ),
    *("$steps.a.result", "$steps.a.result.b[0]", "$run.metadata." + "a." * 200, "$steps." + "a" * 600, "1e400", "NaN"),
    *("2026-01-01T00:00:00Z", "0001-01-01", "9999-12-31T23:59:59-23:59", "1700000000", "9" * 400, "²", "٣", "1h", "-"),
)
NUMBERS = (0, 1, -1, 2, 1.5, 1e308, -1e-308, 2**31, 2**53, 2**63 - 1, -(2**63), 2**64 - 1, 10**6, 0.1)
_RAW = (b"NaN", b"Infinity", b"-0", b"1e999", b'"\\ud800"', b'"\\u0000"', b"01", b"+1", b"'a'", b"undefined", b"{a:1}")


def any_value(rng: random.Random, depth: int = 3) -> Any:
    """Return a JSON value."""
    match rng.randrange(9 if depth else 6):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.choice(NUMBERS)
        case 3:
            return rng.choice(URLS)
        case 4 | 5:
            return rng.choice(TEXTS)
        case 6:
            return [any_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 5, 30)))]
        case 7:
            return {rng.choice(TEXTS): any_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 5)))}
    value: Any = rng.choice(TEXTS)
    for _ in range(rng.choice((3, 99, 101, 300))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def changed(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with one part replaced, removed, added or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return any_value(rng)
    if isinstance(value, list):
        index = rng.randrange(len(value))
        return [*value[:index], changed(rng, value[index]), *value[index + 1 :], *rng.choice(([], value[:1]))]
    name = rng.choice(list(value))
    rest = {key: item for key, item in value.items() if key != name}
    match rng.randrange(6):
        case 0:
            return rest
        case 1:
            return {**value, rng.choice(TEXTS): any_value(rng)}
        case 2:
            return {**rest, rng.choice(TEXTS): value[name]}
    return {**value, name: changed(rng, value[name])}


def body_of(rng: random.Random, valid: Any) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return a body made of a valid one, and the headers that describe it."""
    value = valid
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        value = changed(rng, value)
    written = _written(value)
    kind = rng.randrange(30)
    if kind < 17:
        return written, []
    if kind == 17:
        return gzip.compress(written, 1), [(b"content-encoding", b"gzip")]
    if kind == 18:
        return zlib.compress(written, 1), [(b"content-encoding", rng.choice((b"deflate", b"gzip", b"br", b"identity")))]
    if kind == 19:
        return gzip.compress(b"0" * 300_000, 1), [(b"content-encoding", b"gzip, gzip")]
    if kind == 20:
        return codecs.BOM_UTF8 + written, []
    if kind == 21:
        return written.decode().encode("utf-16"), []
    return _broken(rng, written), []


def _broken(rng: random.Random, written: bytes) -> bytes:
    # What is cut or mixed up may not become another host.
    plain = b'{"model":"m","task_type":"t","input":{"a":[1,"b"]}}' if b"://" in written else written
    at = rng.randrange(len(plain) + 1)
    match rng.randrange(9):
        case 0:
            return plain[:at]
        case 1:
            return plain + rng.choice((b"}", b"\0", b"x", b"[]", b" " * 1000))
        case 2:
            return plain[:at] + rng.choice(_RAW) + plain[at:]
        case 3:
            return plain[:at] + rng.randbytes(rng.choice((1, 4, 40))).replace(b":", b"") + plain[at:]
        case 4:
            return b'{"model":' + rng.choice(_RAW) + b',"task_type":"t","input":{"a":' + rng.choice(_RAW) + b"}}"
        case 5:
            opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
            depth = rng.choice((90, 200, 1100, 30_000))
            return opening * depth + b"1" + closing * depth
        case 6:
            return _many(rng)
        case 7:
            return b""
    return rng.randbytes(rng.choice((1, 10, 500))).replace(b":", b"")


def _many(rng: random.Random) -> bytes:
    """Return a body of very many values, now and then one of a megabyte."""
    count = rng.choice((300, 300, 300, 3000, 3000, 60_000))
    values = rng.choice((b"1", b"{}", b"[]", b'""', b'"http a"', b'{"a":1}'))
    name = rng.choice((b"input", b"event_types", b"tasks", b"steps", b"output", b"x"))
    return b'{"model":"m","task_type":"t","%b":[%b]}' % (name, b",".join([values] * count))


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, TypeError, RecursionError):
        return b"null"
