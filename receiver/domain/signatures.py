"""Signatures on what we send: Standard Webhooks 1.0.0 and Pi's own. Pure, but for the dice in `new_secret`."""

import base64
import hmac
import secrets as dice
from collections.abc import Sequence

from receiver.errors import BadRequest

PREFIX = "whsec_"
_NEW_KEY_BYTES = 32
_SECRET_CHARACTERS = range(8, 501)
_KEY_BYTES = range(24, 65)


def new_secret() -> str:
    """Return a new subscription secret: `whsec_` and the base64 of 32 random bytes."""
    return PREFIX + base64.b64encode(dice.token_bytes(_NEW_KEY_BYTES)).decode()


def check_secret(secret: str) -> None:
    """Raise `BadRequest` (param `secret`) unless a subscriber may choose this secret.

    8 to 500 characters (Pi); after `whsec_` the base64 of 24 to 64 bytes (Standard Webhooks).
    """
    if len(secret) not in _SECRET_CHARACTERS:
        raise BadRequest("secret must have 8 to 500 characters", param="secret")
    try:
        key = signing_key(secret)
    except ValueError:
        raise BadRequest("secret must be text, and after whsec_ valid base64", param="secret") from None
    if secret.startswith(PREFIX) and len(key) not in _KEY_BYTES:
        raise BadRequest("secret must hold 24 to 64 bytes of base64 after whsec_", param="secret")


def signing_key(secret: str) -> bytes:
    """Return the key that Standard Webhooks signs with: what follows `whsec_` decoded, other secrets' UTF-8.

    The base64 may lack its padding, as the public verifiers allow. Raises ValueError for a secret that
    `check_secret` refuses as no base64 or no text.
    """
    if not secret.startswith(PREFIX):
        return secret.encode()
    encoded = secret.removeprefix(PREFIX)
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


def sign_standard(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return `v1,<base64 HMAC-SHA256>` over `{message_id}.{timestamp}.{body}` (Standard Webhooks).

    `message_id` has no dot in it; `timestamp` is the attempt's, in unix seconds.
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(signing_key(secret), content, "sha256")).decode()


def sign_pi(secret: str, body: bytes) -> str:
    """Return `sha256=<hex HMAC-SHA256>` over the body: Pi's `X-Pi-Signature`.

    Pi's clients take the secret as it is written, so a `whsec_` one is not decoded here.
    """
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


def standard_headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three Standard Webhooks headers of one attempt, with one signature per live secret.

    `secrets` are those that are live now, at least one and two or more during a rotation.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign_standard(secret, message_id, timestamp, body) for secret in secrets),
    }
