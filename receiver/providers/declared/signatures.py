"""Checks what a declared provider's webhooks bring as proof, by the strategy that its file names."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from receiver.providers.declared.file_form import ProofTable
from receiver.providers.proofs import (
    fields_of,
    header,
    is_recent,
    verify_ed25519,
    verify_hmac_hex,
    verify_standard,
)
from receiver.providers.webhook_outcomes import Headers, Signature

_HEADER = "header."
_BODY = "{body}"


def described(proof: ProofTable) -> tuple[str, ...]:
    """Return what the capabilities say of the proof."""
    names = {"none": (), "standard": ("standard webhooks",), "hmac": ("hmac",), "ed25519": ("ed25519 with a JWKS",)}
    return names[proof.by]


def verified(
    proof: ProofTable,
    body: bytes,
    headers: Headers,
    *,
    credentials: Mapping[str, str],
    keys: Any,
    now: float,
    has_token: bool = True,
) -> Signature:
    """Check a webhook. An optional proof is not asked for while the account has no secret for it.

    That holds only where the path has a token (`has_token`): at one address for all tasks there is no other proof.
    """
    secret = credentials.get(proof.secret or "", "")
    if proof.by == "none" or (has_token and proof.optional and proof.secret is not None and not secret):
        return Signature.VALID
    if proof.by == "standard":
        return verify_standard(secret, body, headers, now)
    signature, seconds = _given(proof, headers)
    if not signature or not is_recent(seconds, now, proof.tolerance_seconds):
        return Signature.WRONG
    signed = _signed(proof, body, headers, seconds)
    in_hex = signature if proof.encoding == "hex" else _hex_of(signature)
    return verify_hmac_hex(secret, in_hex, signed) if proof.by == "hmac" else verify_ed25519(keys, in_hex, signed)


def _given(proof: ProofTable, headers: Headers) -> tuple[str, str]:
    """Return the signature and the time that a webhook brings."""
    value = header(headers, str(proof.header).lower())
    parts = fields_of(value)
    signature = value if proof.signature_field is None else parts.get(proof.signature_field, "")
    if proof.timestamp_header is not None:
        return signature, header(headers, proof.timestamp_header.lower())
    return signature, parts.get(str(proof.timestamp_field), "")


def _signed(proof: ProofTable, body: bytes, headers: Headers, seconds: str) -> bytes:
    """Return the bytes that were signed: the text, in whose place the body is as it came."""
    named = {name: header(headers, name.removeprefix(_HEADER).lower()) for name in proof.signed.names}
    values = named | {"timestamp": seconds, "body": _BODY, "body_sha256": hashlib.sha256(body).hexdigest()}
    return body.join(part.encode("latin-1", "replace") for part in proof.signed.filled(values).split(_BODY))


def _hex_of(signature: str) -> str:
    try:
        return base64.b64decode(signature, validate=True).hex()
    except ValueError:  # no base64, or not even ASCII
        return ""
