"""`v1a` signatures, which a subscriber verifies with a public key, checked with `cryptography`."""

import base64
import time

import pytest
import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from models import SignatureScheme
from receiver.domain.signatures import check_secret, new_secret, public_key, sign_standard, standard_headers
from receiver.errors import BadRequest

BODY = b'{"type":"task.completed"}'
SEED = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()


def whsk(key: bytes) -> str:
    return "whsk_" + base64.b64encode(key).decode()


def verify(public: str, signature: str, content: bytes) -> None:
    scheme, _, encoded = signature.partition(",")
    assert (scheme, public[:5]) == ("v1a", "whpk_")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public[5:]))
    key.verify(base64.b64decode(encoded), content)


def test_the_public_key_verifies_what_its_private_key_signed() -> None:
    secret = new_secret(SignatureScheme.ASYMMETRIC)
    check_secret(secret, SignatureScheme.ASYMMETRIC)
    signature = sign_standard(secret, "evt_1", 1700000000, BODY)
    verify(public_key(secret), signature, b"evt_1.1700000000." + BODY)
    with pytest.raises(InvalidSignature):
        verify(public_key(secret), signature, b"evt_1.1700000001." + BODY)
    with pytest.raises(InvalidSignature):
        verify(public_key(new_secret(SignatureScheme.ASYMMETRIC)), signature, b"evt_1.1700000000." + BODY)


@pytest.mark.parametrize("secret", [whsk(SEED), whsk(SEED + PUBLIC), whsk(SEED).rstrip("=")])
def test_a_private_key_may_include_its_public_key(secret: str) -> None:
    check_secret(secret, SignatureScheme.ASYMMETRIC)
    assert public_key(secret) == "whpk_" + base64.b64encode(PUBLIC).decode()
    verify(public_key(secret), sign_standard(secret, "evt_1", 1, BODY), b"evt_1.1." + BODY)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "a shared secret",
        "whsk_",
        "whsk_not base64!",
        whsk(SEED[:31]),
        whsk(SEED + b"x"),
        whsk(SEED + SEED),
        "whsec_" + base64.b64encode(SEED).decode(),
        "whpk_" + base64.b64encode(PUBLIC).decode(),
        "whsk_" + "é" * 43,
    ],
)
def test_an_invalid_ed25519_key_is_refused(secret: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_secret(secret, SignatureScheme.ASYMMETRIC)
    assert refusal.value.param == "secret"
    assert len(secret) <= len("whsk_") or secret not in refusal.value.message


@pytest.mark.parametrize("secret", [whsk(SEED), "whpk_" + base64.b64encode(PUBLIC).decode(), "eight\nlines"])
def test_an_ed25519_key_or_a_line_break_is_refused_as_a_shared_secret(secret: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_secret(secret)
    assert refusal.value.param == "secret"


def test_a_verifier_of_shared_secrets_ignores_an_ed25519_signature() -> None:
    shared, key = new_secret(), new_secret(SignatureScheme.ASYMMETRIC)
    now = int(time.time())
    headers = standard_headers([key, shared], "evt_1", now, BODY)
    standardwebhooks.Webhook(shared).verify(BODY, headers)
