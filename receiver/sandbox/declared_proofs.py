"""What a declared provider's twin asks of calls as proof, and what its own webhooks bring."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from receiver.sandbox.signatures import public_jwks, signed_by_secret, standard_headers

SIGNING_SECRET = "sandbox-webhook-secret"  # noqa: S105 - of the sandbox alone, and told in its guide
"""With what webhooks are signed where a provider's user sets the secret."""
_FORGED = "not-the-secret"


def is_authorized(file: Mapping[str, Any], headers: Mapping[str, str], key: str | None) -> bool:
    """Return whether a call has the headers that the file says. `key` is the only one to accept, None for any."""
    if any(headers.get(name) != value for name, value in file.get("headers", {}).items()):
        return False
    auth = file.get("auth", {})
    if auth.get("by") == "header":
        begin, _, end = auth["value"].partition("{api_key}")
        value = headers.get(auth["name"], "")
        fits = value.startswith(begin) and value.endswith(end)
        return fits and _is_key(value.removeprefix(begin).removesuffix(end), key)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return scheme == "Bearer" and (_is_token(token, key) if auth.get("by") == "jwt" else _is_key(token, key))


def _is_key(given: str, key: str | None) -> bool:
    return bool(given.strip()) and (key is None or given == key)


def _is_token(token: str, key: str | None) -> bool:
    """Return whether it is a JSON Web Token for now; its signature is checked where the key is known."""
    try:
        head, claims, signature = token.split(".")
        content = orjson.loads(_decoded(claims))
        is_now = content["nbf"] <= time.time() < content["exp"] and bool(content["iss"])
        is_hs256 = orjson.loads(_decoded(head))["alg"] == "HS256"
    except (ValueError, KeyError, TypeError):
        return False
    if key is None:
        return is_now and is_hs256
    return is_now and _decoded(signature) == hmac.digest(key.encode(), f"{head}.{claims}".encode(), "sha256")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Signer:
    """Signs webhooks by the strategy of a file."""

    def __init__(self, proof: Mapping[str, Any]) -> None:
        self._proof = proof
        self._key = Ed25519PrivateKey.generate()
        jwks = proof.get("jwks")
        self.jwks_path = None if jwks is None else urlsplit(jwks).path
        """Where the public keys are; None if nothing is signed by one."""

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self._key = Ed25519PrivateKey.generate()

    def jwks(self) -> dict[str, Any]:
        """Return the public keys."""
        return public_jwks([self._key])

    def headers(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers that prove a body."""
        secret = (_FORGED if forged else SIGNING_SECRET).encode()
        seconds = str(int(time.time()))
        match self._proof.get("by", "none"):
            case "standard":
                return standard_headers(body, lambda content: [signed_by_secret(secret, content)])
            case "hmac":
                return self._in_place(hmac.digest(secret, self._content(body, seconds), "sha256"), seconds)
            case "ed25519":
                key = Ed25519PrivateKey.generate() if forged else self._key
                return self._in_place(key.sign(self._content(body, seconds)), seconds)
        return {}

    def _content(self, body: bytes, seconds: str) -> bytes:
        text = self._proof.get("signed", "{timestamp}.{body}").replace("{timestamp}", seconds)
        text = text.replace("{body_sha256}", hashlib.sha256(body).hexdigest())
        return body.join(part.encode() for part in text.split("{body}"))

    def _in_place(self, signature: bytes, seconds: str) -> dict[str, str]:
        is_hex = self._proof.get("encoding", "hex") == "hex"
        text = signature.hex() if is_hex else base64.b64encode(signature).decode()
        parts = [(self._proof.get("timestamp_field"), seconds), (self._proof.get("signature_field"), text)]
        fields = ",".join(f"{name}={value}" for name, value in parts if name is not None)
        headers = {self._proof["header"].lower(): fields if self._proof.get("signature_field") else text}
        if (name := self._proof.get("timestamp_header")) is not None:
            headers[name.lower()] = seconds
        return headers
