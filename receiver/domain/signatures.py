"""The signatures of deliveries: Standard Webhooks 1.0.0 and Pi's own. Only `new_secret` is not a pure function."""

import base64
import hmac
from collections.abc import Sequence
from functools import lru_cache
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models import DeliveryFormat, SignatureScheme
from receiver.errors import BadRequest

PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
_NEW_KEY_BYTES = 32
_SECRET_CHARACTERS = range(8, 501)
_KEY_BYTES = range(24, 65)
_SEED_BYTES = 32
_OPAQUE_SECRET_FORMATS = frozenset({DeliveryFormat.PI, DeliveryFormat.PIAPI})
"""Their subscribers take the secret as it is, and decode nothing in it."""


def new_secret(scheme: SignatureScheme = SignatureScheme.SYMMETRIC) -> str:
    """Return a new subscription secret: the scheme's prefix and the base64 of 32 random bytes."""
    prefix = PRIVATE_PREFIX if scheme == SignatureScheme.ASYMMETRIC else PREFIX
    return prefix + base64.b64encode(token_bytes(_NEW_KEY_BYTES)).decode()


def check_secret(
    secret: str,
    scheme: SignatureScheme = SignatureScheme.SYMMETRIC,
    form: DeliveryFormat = DeliveryFormat.STANDARD,
) -> None:
    """Raise `BadRequest` (param `secret`) unless a subscription with this format may have this secret.

    `v1`: 8 to 500 characters. With the format `pi` any (`receiver/api/CONTRACTS.md`, "Pi"): it is a key as it is. With
    `piapi` printable ones: the secret is a header's value. With the others, which verifiers of Standard Webhooks read,
    it is printable, and after a prefix `whsec_` the base64 of 24 to 64 bytes.
    `v1a`: `whsk_` and the base64 of an ed25519 key: its 32 bytes, optionally followed by the public key's 32.
    """
    if scheme == SignatureScheme.ASYMMETRIC:
        _check_private_key(secret)
        return
    _check_text(secret)
    if form != DeliveryFormat.PI and not secret.isprintable():
        raise _refused("secret may not have control characters")
    if form not in _OPAQUE_SECRET_FORMATS:
        _check_shared_secret(secret)


@lru_cache(maxsize=1024)
def signing_key(secret: str) -> bytes:
    """Return the HMAC key of a secret: the decoded base64 after `whsec_`, or the UTF-8 of any other secret.

    What follows `whsec_` without being base64 makes the whole text the key, as in a secret of Pi's that happens to
    begin so. The base64 may lack its padding, which the public verifiers allow too. Raises ValueError for text that
    has no UTF-8; `check_secret` refuses such secrets.
    """
    return (_standard_key(secret) if secret.startswith(PREFIX) else None) or secret.encode()


def public_key(secret: str) -> str:
    """Return the public key (`whpk_...`) that verifies the signatures of a `whsk_` secret."""
    return PUBLIC_PREFIX + base64.b64encode(_private_key(secret).public_key().public_bytes_raw()).decode()


def sign_standard(secret: str, message_id: str, timestamp: int, body: bytes, *, shared: bool = False) -> str:
    """Return a signature over `{message_id}.{timestamp}.{body}` (Standard Webhooks), in the secret's own scheme.

    It is `v1,<base64 HMAC-SHA256>`, or `v1a,<base64 ed25519>` with a `whsk_` secret that is not `shared`. `message_id`
    may not contain a dot; `timestamp` is the time of the attempt in unix seconds.
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    if secret.startswith(PRIVATE_PREFIX) and not shared:
        scheme, signature = SignatureScheme.ASYMMETRIC, _private_key(secret).sign(content)
    else:
        scheme, signature = SignatureScheme.SYMMETRIC, hmac.digest(signing_key(secret), content, "sha256")
    return f"{scheme},{base64.b64encode(signature).decode()}"


def sign_pi(secret: str, body: bytes) -> str:
    """Return Pi's `X-Pi-Signature`, `sha256=<hex HMAC-SHA256>` over the body.

    Pi's clients use the text of the secret as the key, so a `whsec_` secret is not decoded here.
    """
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


def standard_headers(
    secrets: Sequence[str], message_id: str, timestamp: int, body: bytes, *, shared: bool = False
) -> dict[str, str]:
    """Return the three Standard Webhooks headers of one attempt, with one signature for each secret.

    `secrets` are all that sign at present: one, or several during a rotation. With `shared` they are HMAC keys, however
    they begin.
    """
    signatures = [sign_standard(secret, message_id, timestamp, body, shared=shared) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _check_text(secret: str) -> None:
    if len(secret) not in _SECRET_CHARACTERS:
        raise _refused("secret must have 8 to 500 characters")
    try:
        secret.encode()
    except UnicodeEncodeError:
        raise _refused("secret must be text") from None


def _check_shared_secret(secret: str) -> None:
    if secret.startswith((PRIVATE_PREFIX, PUBLIC_PREFIX)):
        raise _refused("secret is an ed25519 key; with signature v1 it may not begin with whsk_ or whpk_")
    if secret.startswith(PREFIX) and len(_standard_key(secret) or b"") not in _KEY_BYTES:
        raise _refused("secret must have the base64 of 24 to 64 bytes after whsec_; only the format pi takes any text")


def _standard_key(secret: str) -> bytes | None:
    """Return the decoded base64 after `whsec_`, None if it is none."""
    try:
        return _decoded(secret.removeprefix(PREFIX))
    except ValueError:
        return None


def _check_private_key(secret: str) -> None:
    try:
        if not secret.startswith(PRIVATE_PREFIX):
            raise ValueError
        key = _decoded(secret.removeprefix(PRIVATE_PREFIX))
        public = _private_key(secret).public_key().public_bytes_raw()
    except ValueError:
        raise _refused("with signature v1a, secret must be whsk_ and the base64 of 32 or 64 bytes") from None
    if key[_SEED_BYTES:] not in (b"", public):
        raise _refused("secret's second 32 bytes must be the public key of its first 32; you may omit them")


def _private_key(secret: str) -> Ed25519PrivateKey:
    """Return the private key of a `whsk_` secret, from its first 32 bytes. Raises ValueError."""
    key = _decoded(secret.removeprefix(PRIVATE_PREFIX))
    if len(key) not in (_SEED_BYTES, 2 * _SEED_BYTES):
        raise ValueError("an ed25519 key has 32 bytes")
    return Ed25519PrivateKey.from_private_bytes(key[:_SEED_BYTES])


def _decoded(encoded: str) -> bytes:
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


def _refused(message: str) -> BadRequest:
    return BadRequest(message, param="secret")
