"""The signatures of webhooks that several providers make alike, and the keys for them."""

import base64
import hmac
import secrets
import time
import uuid
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PREFIX = "whsec_"


def new_secret() -> str:
    """Return a secret for Standard Webhooks."""
    return f"{_PREFIX}{base64.b64encode(secrets.token_bytes(24)).decode()}"


def key_of(secret: str) -> bytes:
    """Return the key that a secret for Standard Webhooks has."""
    return base64.b64decode(secret.removeprefix(_PREFIX))


def standard_headers(body: bytes, sign: Callable[[bytes], Sequence[str]]) -> dict[str, str]:
    """Return the headers of Standard Webhooks for a body; `sign` returns the signatures of what is signed."""
    name, seconds = f"msg_{uuid.uuid4().hex}", str(int(time.time()))
    signatures = sign(f"{name}.{seconds}.".encode() + body)
    return {"webhook-id": name, "webhook-timestamp": seconds, "webhook-signature": " ".join(signatures)}


def signed_by_secret(key: bytes, content: bytes) -> str:
    """Return a signature of Standard Webhooks, by HMAC-SHA256."""
    return f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}"


def signed_by_key(key: Ed25519PrivateKey, content: bytes) -> str:
    """Return a signature of Standard Webhooks, by ed25519."""
    return f"v1a,{base64.b64encode(key.sign(content)).decode()}"


def public_jwks(keys: Sequence[Ed25519PrivateKey], *, is_padded: bool = False) -> dict[str, list[dict[str, str]]]:
    """Return the public keys as a JWKS. `is_padded`: with the padding of base64, which the standard leaves out."""
    raw = [key.public_key().public_bytes_raw() for key in keys]
    points = [base64.urlsafe_b64encode(each).decode() for each in raw]
    return {
        "keys": [{"kty": "OKP", "crv": "Ed25519", "x": x if is_padded else x.rstrip("=")} for x in points],
    }
