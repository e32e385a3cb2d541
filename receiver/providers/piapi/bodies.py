"""Reads everything that PiAPI sends: JSON, leniently, without the secrets that it echoes.

PiAPI echoes `config.webhook_config.secret` in clear (`receiver/providers/piapi/CONTRACT.md`, "Webhook"), and it
may never be stored, logged or sent on. It is removed by its name, after parsing; where else a known secret stands,
`receiver.domain.redaction` redacts it.
"""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from receiver.domain.redaction import REDACTED, may_hold, redact_text, redact_value
from receiver.providers.base import MalformedUpdate
from receiver.providers.lenient_json import read_json

_CONFIG_NAMES = frozenset({"webhook_config", "webhookConfig", "WebhookConfig", "webhookconfig", "webhook-config"})
_CONFIG_NAME = re.compile(r"webhook[_-]?config", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"""
    (?P<name> secret \w{0,32}+ (?:\\{0,31}+["'])?+ \s*+ [:=] \s*)
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


def read_body(body: bytes, hidden: Sequence[str] = (), *, cut: bool = False) -> Any:
    """Return the JSON value of `body`, without the secrets of webhooks and without those in `hidden`.

    `cut` is that of `read_json`. Raises `MalformedUpdate`.
    """
    value = [read_json(body, cut=cut)]
    if isinstance(value[0], str) and value[0].lstrip().startswith("{"):  # a JSON object, quoted once too often
        value = [read_json(value[0].encode(), cut=cut)]
    remove_secrets(value)
    return _without(hidden, body, value)[0]


def redact(body: bytes, hidden: Sequence[str] = ()) -> str:
    """Return an inbound body as text without anything that is called a secret, nor what is `hidden`. Never raises."""
    try:
        value = [read_json(body)]
    except MalformedUpdate:
        return redact_plain(body, hidden)
    remove_secrets(value, everywhere=True)
    return orjson.dumps(_without(hidden, body, value)[0]).decode()


def redact_plain(body: bytes, hidden: Sequence[str] = ()) -> str:
    """Return a body that is no JSON as text without secrets and without NULs. Never raises."""
    # Without NULs the ASCII part of UTF-16 and UTF-32 can be read too, whatever the order of their bytes.
    text = redact_secrets(body.decode("utf-8", "replace").replace("\0", ""))
    for secret in hidden:
        text = redact_text(text, secret)
    return text


def remove_secrets(value: dict[str, Any] | list[Any], *, everywhere: bool = False) -> None:
    """Remove, in place, the secrets of every `webhook_config` in `value`, or those `everywhere` in it.

    In a text that contains a webhook_config (JSON in JSON, a dump in an error message) the secrets are redacted.
    """
    level: list[tuple[Any, bool]] = [(value, everywhere)]
    while level:
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


def redact_secrets(text: str) -> str:
    """Redact the value of everything in `text` that is called a secret, also where the text is truncated."""
    return _SECRET_TEXT.sub(_redacted, text)


def _without(hidden: Sequence[str], body: bytes, value: list[Any]) -> list[Any]:
    held = [secret for secret in hidden if may_hold(body, secret)]
    if held:
        # Mostly it stood only in the webhook_config, where it is removed by now. To write the rest as JSON and search
        # that takes a tenth of the time that it takes to look at each text.
        rest = orjson.dumps(value)
        held = [secret for secret in held if may_hold(rest, secret)]
    return redact_value(value, held) if held else value


def _drop_secrets(config: dict[str, Any]) -> None:
    for key in [key for key in config if "secret" in key.lower()]:
        del config[key]


def _is_about_a_config(key: str | int, text: str, in_config: bool) -> bool:
    return in_config or key in _CONFIG_NAMES or _CONFIG_NAME.search(text) is not None


def _redacted(match: re.Match[str]) -> str:
    mark = match["double"] or match["single"] or match["escaped"] or ""
    return f"{match['name']}{mark}{REDACTED}{mark}"
