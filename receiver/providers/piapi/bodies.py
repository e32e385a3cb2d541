"""Reads everything that PiAPI sends: JSON, without the secret that it echoes and without NUL characters.

PiAPI echoes `config.webhook_config.secret` in clear (`receiver/providers/piapi/CONTRACT.md`, "Webhook"), and it
may never be stored, logged or sent on. PostgreSQL's text and JSONB cannot hold NUL characters.
"""

import re
from typing import Any

import orjson

from receiver.domain.redaction import REDACTED
from receiver.providers.base import MalformedUpdate

DEEPEST = 100
"""Levels of nesting. orjson reads 1024 but writes 254, and what is stored is wrapped in a few more."""

_CONFIG_NAMES = frozenset({"webhook_config", "webhookConfig"})
_CONFIG_NAME = re.compile(r"webhook_?config", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"""
    (?P<name> secret \w{0,32} (?:\\{0,31}["'])? \s* [:=] \s*)
    (?: (?P<double> ") (?:\\.|[^"\\])* "?
      | (?P<single> ') (?:\\.|[^'\\])* '?
      | (?P<escaped> (?P<slashes>\\{1,31}) (?P<mark>["'])) (?: (?! (?<!\\) (?P=slashes)(?P=mark) ) . )*
        (?: (?P=slashes)(?P=mark) )?
      | \*\*\*(?![^\s,;&}\]]) | [^\r\n,;&}\]]+
    )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
"""A secret's name and value as they look in JSON (also truncated JSON), in JSON quoted inside JSON, and in plain text.

Every repetition is bounded or cannot backtrack, so that no body makes this slow.
"""


def read_body(body: bytes) -> Any:
    """Return the JSON value of `body`, without secrets and NULs. Raises `MalformedUpdate`."""
    try:
        holder = [orjson.loads(body)]
    except orjson.JSONDecodeError:
        raise MalformedUpdate("the body is not JSON") from None
    if remove_secrets(holder) > DEEPEST + 1:
        raise MalformedUpdate("the body is nested too deeply")
    if b"\\u0000" in body:
        holder = _without_nuls(holder)
        # A NUL inside a name may have hidden it from the first pass.
        remove_secrets(holder)
    return holder[0]


def redact(body: bytes) -> str:
    """Return an inbound body as text without the secrets that it echoes and without NULs. Never raises."""
    try:
        return orjson.dumps(read_body(body)).decode()
    except MalformedUpdate:
        return redact_secrets(body.decode("utf-8", "replace").replace("\0", ""))


def remove_secrets(value: dict[str, Any] | list[Any]) -> int:
    """Remove, in place, the secrets of every `webhook_config` in `value`; return how many levels of nesting it has.

    It goes level by level, without recursion: the depth is not checked yet. In a text that contains a webhook_config
    (JSON in JSON, a dump in an error message) the secrets are redacted.
    """
    level: list[tuple[Any, bool]] = [(value, False)]
    depth = 0
    while level:
        depth += 1
        below: list[tuple[Any, bool]] = []
        for container, in_config in level:
            if in_config and type(container) is dict:
                _drop_secrets(container)
            for key, item in container.items() if type(container) is dict else enumerate(container):
                kind = type(item)
                if kind is dict or kind is list:
                    below.append((item, in_config or key in _CONFIG_NAMES))
                elif kind is str and "ecret" in item and _is_about_a_config(key, item, in_config):
                    container[key] = redact_secrets(item)
        level = below
    return depth


def redact_secrets(text: str) -> str:
    """Redact the value of everything in `text` that is called a secret, also where the text is truncated."""
    return _SECRET_TEXT.sub(_redacted, text)


def _drop_secrets(config: dict[str, Any]) -> None:
    for key in [key for key in config if "secret" in key.lower()]:
        del config[key]


def _is_about_a_config(key: str | int, text: str, in_config: bool) -> bool:
    return in_config or key in _CONFIG_NAMES or _CONFIG_NAME.search(text) is not None


def _redacted(match: re.Match[str]) -> str:
    mark = match["double"] or match["single"] or match["escaped"] or ""
    return f"{match['name']}{mark}{REDACTED}{mark}"


def _without_nuls(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nuls(item) for item in value]
    if isinstance(value, dict):
        return {key.replace("\0", ""): _without_nuls(item) for key, item in value.items()}
    return value
