"""How a declared provider's calls are authenticated."""

import base64
import hmac
from collections.abc import Mapping

import orjson

from receiver.providers.declared.file_form import AuthTable, ProviderFile

_CLOCK_SECONDS = 5
"""A token is valid from this long before it is made: the provider's clock may be a little behind."""


def auth_headers(file: ProviderFile, credentials: Mapping[str, str], now: float) -> dict[str, str]:
    """Return the headers that authenticate a call; `now` is the time in unix seconds."""
    auth = file.auth
    match auth.by:
        case "jwt":
            return {"authorization": f"Bearer {_token(auth, credentials, now)}"}
        case "header":
            return {auth.name.lower(): auth.value.filled(credentials)}
    return {"authorization": f"Bearer {credentials[auth.key or file.credentials[0]]}"}


def _token(auth: AuthTable, credentials: Mapping[str, str], now: float) -> str:
    """Return a JSON Web Token (RFC 7519) signed with HS256. Making one takes microseconds, so none is kept."""
    claims = {"iss": credentials[auth.issuer], "exp": int(now + auth.seconds), "nbf": int(now) - _CLOCK_SECONDS}
    signed = b".".join(_segment(orjson.dumps(part)) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.digest(credentials[str(auth.key)].encode(), signed, "sha256")
    return b".".join((signed, _segment(signature))).decode()


def _segment(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
