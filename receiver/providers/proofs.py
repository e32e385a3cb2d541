"""Checks the signatures that providers put on their webhooks. Pure functions that never raise, whatever they are given.

A signature is about the body as it came and about a time, so that a webhook which somebody recorded is good for a few
minutes only.
"""

import base64
import hmac
from collections.abc import Iterator
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from receiver.domain.signatures import signing_key
from receiver.providers.webhook_outcomes import Headers, Signature

TOLERANCE_SECONDS = 300
"""How far from now a signed time may be. Source: Standard Webhooks 1.0.0 leaves it open, its libraries take this."""
_LONGEST_NUMBER = 20
_MOST_SIGNATURES = 20
_MOST_KEYS = 50


def header(headers: Headers, name: str) -> str:
    """Return the value of a header, "" if it is missing, or comes several times with different values."""
    wanted = name.encode()
    values = {value.strip() for each, value in headers if each == wanted}
    return values.pop().decode("latin-1") if len(values) == 1 else ""


def is_recent(seconds: str, now: float, tolerance: float = TOLERANCE_SECONDS) -> bool:
    """Return whether a text is a time in unix seconds that is not far from now."""
    is_number = seconds.isascii() and seconds.isdecimal() and len(seconds) <= _LONGEST_NUMBER
    return is_number and abs(int(seconds) - now) <= tolerance


def verify_standard(secret: str, body: bytes, headers: Headers, now: float) -> Signature:
    """Check a signature of Standard Webhooks (`v1`, HMAC-SHA256 over `{id}.{timestamp}.{body}`)."""
    signed = _standard_content(body, headers, now)
    if signed is None or not secret:
        return Signature.WRONG
    try:
        expected = hmac.digest(signing_key(secret), signed, "sha256")
    except ValueError:
        return Signature.WRONG
    matches = [hmac.compare_digest(expected, given) for given in _given(headers, "v1")]
    return Signature.VALID if any(matches) else Signature.WRONG


def verify_standard_public(keys: Any, body: bytes, headers: Headers, now: float) -> Signature:
    """Check an asymmetric one (`v1a`, ed25519) with the keys of a JWKS, of which any may have signed."""
    signed = _standard_content(body, headers, now)
    if signed is None:
        return Signature.WRONG
    for given in _given(headers, "v1a"):
        if _is_by_one_of(keys, given, signed):
            return Signature.VALID
    return Signature.WRONG


def verify_ed25519(keys: Any, signature: str, signed: bytes) -> Signature:
    """Check an ed25519 signature in hex over some bytes, with the keys of a JWKS."""
    try:
        given = bytes.fromhex(signature)
    except ValueError:
        return Signature.WRONG
    return Signature.VALID if _is_by_one_of(keys, given, signed) else Signature.WRONG


def verify_hmac_hex(secret: str, signature: str, signed: bytes) -> Signature:
    """Check an HMAC-SHA256 in lower-case hex over some bytes; the secret's text is the key."""
    if not secret:
        return Signature.WRONG
    expected = hmac.digest(secret.encode(), signed, "sha256").hex()
    is_equal = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
    return Signature.VALID if is_equal else Signature.WRONG


def fields_of(value: str) -> dict[str, str]:
    """Return the fields of a header such as `t=1,v1=abc`; of several with one name the last."""
    pairs = (part.partition("=") for part in value.split(","))
    return {name.strip(): given.strip() for name, equals, given in pairs if equals}


def _standard_content(body: bytes, headers: Headers, now: float) -> bytes | None:
    message_id, seconds = header(headers, "webhook-id"), header(headers, "webhook-timestamp")
    if not message_id or not is_recent(seconds, now):
        return None
    return b"%b.%b.%b" % (message_id.encode("latin-1"), seconds.encode(), body)


def _given(headers: Headers, version: str) -> Iterator[bytes]:
    """Yield the signatures of a version that the header has, decoded."""
    for part in header(headers, "webhook-signature").split(" ")[:_MOST_SIGNATURES]:
        name, _, text = part.partition(",")
        if name == version:
            try:
                yield base64.b64decode(text, validate=True)
            except ValueError:  # no base64, or not even ASCII
                continue


def _is_by_one_of(keys: Any, signature: bytes, signed: bytes) -> bool:
    listed = keys.get("keys") if isinstance(keys, dict) else None
    return any(_is_by(key, signature, signed) for key in listed[:_MOST_KEYS]) if isinstance(listed, list) else False


def _is_by(key: Any, signature: bytes, signed: bytes) -> bool:
    text = key.get("x") if isinstance(key, dict) else None
    if not isinstance(text, str):
        return False
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, signed)
    except (ValueError, InvalidSignature):
        return False
    return True
