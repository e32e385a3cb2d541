"""What an inbound webhook brings as proof before its body is read: a secret in a header, or a token in its path."""

import contextlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.types import Scope

from receiver.domain.ids import is_id
from receiver.domain.keyring import KeyRing
from receiver.providers import CallbackScope

_SECRET_HEADER = b"x-webhook-secret"
_ATTEMPT = re.compile(r"0{0,3}[1-9][0-9]{0,2}")
_LONGEST_QUERY = 4096
"""Bytes of it that are looked at."""


class InboundSecrets:
    """Checks secrets. `shared`: by provider, those of tasks that were created elsewhere."""

    def __init__(self, keyring: KeyRing, shared: Mapping[str, str]) -> None:
        self._keyring = keyring
        # Without blanks around it, as a header's value has none either.
        self._shared = {name: secret.strip() for name, secret in shared.items()}
        self._header_forms = {name: _header_forms(secret) for name, secret in self._shared.items()}

    def verified(self, provider: str, callback: CallbackScope, task_uid: str | None, scope: Scope) -> str | None:
        """Return the secret that a request for a task of the provider brings, as text; None if it is wrong.

        It is "" where a provider has one address for all tasks of an account: its signature alone is the proof then.
        """
        token: str | None = scope["path_params"].get("token")
        presented = _in_header(scope) if token is None else token.encode("latin-1", "replace")
        if task_uid is not None:
            derived = presented.decode("latin-1")
            return derived if is_id(task_uid) and self._keyring.verify_hook(task_uid, derived) else None
        if callback == CallbackScope.ACCOUNT:
            return ""
        matches = [hmac.compare_digest(presented, form) for form in self._header_forms.get(provider, ())]
        return self._shared[provider] if any(matches) else None


def _in_header(scope: Scope) -> bytes:
    """Return the value of the secret's header without blanks around it; b"" if there are several that differ."""
    values = {value.strip(b" \t") for name, value in scope["headers"] if name == _SECRET_HEADER}
    return values.pop() if len(values) == 1 else b""


def _header_forms(secret: str) -> list[bytes]:
    """Return the bytes by which a header can hold `secret`: some clients write UTF-8, some Latin-1. None for ""."""
    forms = {secret.encode("utf-8", "surrogateescape")}
    with contextlib.suppress(UnicodeEncodeError):
        forms.add(secret.encode("latin-1"))
    return sorted(forms - {b""})


def attempt_of(scope: Scope) -> int:
    """Return the attempt in the URL that the provider was given: `?attempt=2`. The first attempt has no parameter.

    What else the query holds, and numbers that no attempt has, are ignored: proxies add parameters of their own.
    """
    query: bytes = scope["query_string"]
    if not query:
        return 1
    for name, value in parse_qsl(query[:_LONGEST_QUERY].decode("latin-1")):
        if name == "attempt" and _ATTEMPT.fullmatch(value):
            return int(value)
    return 1
