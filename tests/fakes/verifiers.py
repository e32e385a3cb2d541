"""Verification of deliveries by a subscriber, with public packages instead of Ringback's code."""

import base64
import hashlib
import hmac

import replicate
import standardwebhooks
import svix
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from replicate.webhook import WebhookSigningSecret

from tests.fakes.subscriber import ReceivedDelivery

WebhookVerificationError = standardwebhooks.WebhookVerificationError
"""The first two packages raise it."""
_TOLERANCE_SECONDS = 300


def verify_standard(secret: str, received: ReceivedDelivery) -> None:
    """Verify the Standard Webhooks headers with three public packages. Raises `WebhookVerificationError`."""
    assert standardwebhooks.Webhook(secret).verify(received.body, received.headers) == received.json
    svix.Webhook(secret).verify(received.body, received.headers)
    verify_replicate(secret, received)


def verify_replicate(secret: str, received: ReceivedDelivery) -> None:
    """Verify a delivery with Replicate's client. Raises `replicate.webhook.WebhookValidationError`."""
    replicate.webhooks.validate(
        headers=received.headers,
        body=received.body.decode(),
        secret=WebhookSigningSecret(key=secret),
        tolerance=_TOLERANCE_SECONDS,
    )


def verify_pi(secret: str, received: ReceivedDelivery) -> None:
    """Verify `X-Pi-Signature` as Pi's documentation specifies. Raises AssertionError."""
    signature = hmac.new(secret.encode(), received.body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(received.headers["x-pi-signature"], f"sha256={signature}")


def verify_ed25519(public_key: str, received: ReceivedDelivery) -> None:
    """Verify with `cryptography` that a `v1a` signature is this key's. Raises `AssertionError` if none is."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    content = f"{received.event_id}.{received.headers['webhook-timestamp']}.".encode() + received.body
    signatures = [each.split(",", 1) for each in received.headers["webhook-signature"].split(" ")]
    assert any(_is_valid(key, encoded, content) for scheme, encoded in signatures if scheme == "v1a")


def _is_valid(key: Ed25519PublicKey, encoded: str, content: bytes) -> bool:
    try:
        key.verify(base64.b64decode(encoded), content)
    except Exception:
        return False
    return True
