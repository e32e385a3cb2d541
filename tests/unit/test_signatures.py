"""Signatures, checked with the public verifiers that subscribers use."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from models import DeliveryFormat
from receiver.domain.signatures import (
    check_secret,
    new_secret,
    sign_pi,
    sign_standard,
    signing_key,
    standard_headers,
)
from receiver.errors import BadRequest

BODY = b'{"type":"task.completed","timestamp":"2026-01-01T00:00:00Z","data":{"name":"\xc3\xa9"}}'
VERIFIERS: list[Callable[..., Any]] = [standardwebhooks.Webhook, svix.webhooks.Webhook]


def whsec(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


def now() -> int:
    return int(time.time())


@pytest.fixture(params=VERIFIERS, ids=["standardwebhooks", "svix"])
def verifier(request: pytest.FixtureRequest) -> Callable[..., Any]:
    made: Callable[..., Any] = request.param
    return made


def test_a_public_verifier_accepts_our_signature(verifier: Callable[..., Any]) -> None:
    secret = new_secret()
    verifier(secret).verify(BODY, standard_headers([secret], "evt_1", now(), BODY))


def test_a_public_verifier_refuses_another_body(verifier: Callable[..., Any]) -> None:
    secret = new_secret()
    headers = standard_headers([secret], "evt_1", now(), BODY)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier(secret).verify(BODY + b" ", headers)


def test_during_a_rotation_either_secret_verifies(verifier: Callable[..., Any]) -> None:
    old, new = new_secret(), new_secret()
    headers = standard_headers([old, new], "evt_1", now(), BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        verifier(secret).verify(BODY, headers)


def test_a_public_verifier_accepts_a_secret_that_is_plain_text(verifier: Callable[..., Any]) -> None:
    secret = "pässword of mine"
    verifier(secret.encode()).verify(BODY, standard_headers([secret], "evt_1", now(), BODY))


def test_a_public_verifier_accepts_a_secret_without_padding(verifier: Callable[..., Any]) -> None:
    secret = whsec(32).rstrip("=")
    check_secret(secret)
    verifier(secret).verify(BODY, standard_headers([secret], "evt_1", now(), BODY))


def test_the_example_of_the_specification_has_the_expected_signature() -> None:
    """The values are those of the Standard Webhooks and svix documentation."""
    signature = sign_standard(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["12345678", whsec(32), "é" * 20])
def test_pi_s_signature_uses_the_text_of_the_secret_as_the_key(secret: str) -> None:
    expected = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    assert sign_pi(secret, BODY) == f"sha256={expected}"


def test_a_new_secret_is_unique_and_allowed() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(signing_key(first)) == 32
    check_secret(first)


@pytest.mark.parametrize("secret", ["x" * 8, "x" * 500, whsec(24), whsec(64), "пароль из букв"])
def test_a_valid_secret_is_accepted(secret: str) -> None:
    check_secret(secret)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "x" * 7,
        "x" * 501,
        "whsec_",
        "whsec_not base64!",
        "whsec_" + "é" * 40,
        whsec(23),
        whsec(65),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "\ud800" * 8,
    ],
)
def test_an_invalid_secret_is_refused(secret: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_secret(secret)
    assert refusal.value.param == "secret"
    assert secret == "" or secret not in refusal.value.message


OPAQUE = [
    "whsec_my-own.secret",
    "whsec_",
    "whsec_not base64!",
    "whsec_" + "é" * 40,
    "whsk_" + "A" * 43 + "=",
    "whpk_12345678",
    " leading and trailing ",
    "two\nlines and a \t tab",
    "nul\0inside",
    "😀" * 8,
    "x" * 500,
    whsec(3),
    whsec(65),
]


@pytest.mark.parametrize("secret", [each for each in OPAQUE if len(each) >= 8])
def test_pi_s_format_takes_any_text_as_a_secret(secret: str) -> None:
    check_secret(secret, form=DeliveryFormat.PI)
    expected = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    assert sign_pi(secret, BODY) == f"sha256={expected}"
    assert standard_headers([secret], "evt_1", 1, BODY, shared=True)["webhook-signature"].startswith("v1,")


@pytest.mark.parametrize("secret", ["whsec_my-own.secret", "whsec_not base64!", "whsec_" + "é" * 40, "whsec_===="])
def test_what_follows_whsec_without_being_base64_makes_the_whole_text_the_key(secret: str) -> None:
    assert signing_key(secret) == secret.encode()


@pytest.mark.parametrize("form", list(DeliveryFormat))
@pytest.mark.parametrize("secret", ["", "x" * 7, "x" * 501, "\ud800" * 8])
def test_no_format_takes_a_secret_that_is_too_short_too_long_or_no_text(form: DeliveryFormat, secret: str) -> None:
    with pytest.raises(BadRequest):
        check_secret(secret, form=form)


def test_the_format_of_a_secret_sent_as_a_header_takes_any_printable_text() -> None:
    for secret in ("whsec_my-own.secret", "whsk_12345678"):
        check_secret(secret, form=DeliveryFormat.PIAPI)
    with pytest.raises(BadRequest):
        check_secret("two\nlines", form=DeliveryFormat.PIAPI)


@given(st.text(max_size=600), st.sampled_from(list(DeliveryFormat)))
def test_a_secret_is_either_refused_or_signs(secret: str, form: DeliveryFormat) -> None:
    try:
        check_secret(secret, form=form)
    except BadRequest:
        return
    assert sign_standard(secret, "evt_1", 1, b"", shared=True).startswith("v1,")
    assert sign_pi(secret, b"").startswith("sha256=")
