"""The key ring: the newest key signs and encrypts, all keys verify and decrypt, and no text shows a key."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing, MasterKeyMissing, hash_api_key, new_api_key, new_master_key
from receiver.errors import RingbackError, StartError

OLD, NEW = "old-master-key-0123456789", "new-master-key-0123456789"
BEFORE, DURING, AFTER = KeyRing([OLD]), KeyRing([OLD, NEW]), KeyRing([NEW])
TASK = new_id()


def test_a_hook_secret_verifies_for_its_own_task_only() -> None:
    secret = DURING.hook_secret(TASK)
    assert DURING.verify_hook(TASK, secret)
    assert not DURING.verify_hook(new_id(), secret)


def test_a_hook_secret_is_deterministic_and_contains_no_dot() -> None:
    assert DURING.hook_secret(TASK) == KeyRing([OLD, NEW]).hook_secret(TASK)
    assert "." not in DURING.hook_secret(TASK)


def test_the_newest_key_signs_and_all_keys_verify() -> None:
    assert DURING.hook_secret(TASK) == AFTER.hook_secret(TASK)
    assert DURING.verify_hook(TASK, BEFORE.hook_secret(TASK))
    assert not AFTER.verify_hook(TASK, BEFORE.hook_secret(TASK))


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: "",
        lambda secret: secret[:-1],
        lambda secret: secret + "=",
        lambda secret: secret + "\n",
        lambda secret: secret + "é",
        lambda secret: "é" + secret,
        lambda secret: secret[:5] + "!" + secret[5:],
        lambda secret: secret.swapcase(),
        lambda secret: " " + secret,
        lambda secret: "\ud800",
        lambda secret: "A" * 43,
        lambda secret: "A" * 100_000,
    ],
)
def test_anything_but_the_secret_itself_is_refused(change: Callable[[str], str]) -> None:
    assert DURING.verify_hook(TASK, change(DURING.hook_secret(TASK))) is False


@given(st.text(), st.text())
def test_verifying_never_raises(task_id: str, presented: str) -> None:
    assert DURING.verify_hook(task_id, presented) is False


@pytest.mark.parametrize("text", ["", "whsec_abc", "пароль", "x" * 500])
def test_encrypted_text_can_be_decrypted(text: str) -> None:
    token = DURING.encrypt(text)
    assert DURING.decrypt(token) == text
    assert token.isascii()
    assert not text or text not in token


def test_encrypting_the_same_text_twice_has_different_results() -> None:
    assert DURING.encrypt("text") != DURING.encrypt("text")


def test_an_old_key_still_decrypts_and_the_newest_encrypts() -> None:
    assert DURING.decrypt(BEFORE.encrypt("text")) == "text"
    assert AFTER.decrypt(DURING.encrypt("text")) == "text"


@pytest.mark.parametrize(
    "token",
    [BEFORE.encrypt("text"), "", "invalid", "é", "A" * 99],
    ids=["another key's", "empty", "invalid", "not ASCII", "long"],
)
def test_decrypting_without_the_key_reports_a_missing_master_key(token: str) -> None:
    with pytest.raises(MasterKeyMissing, match="encrypted with a master key that is missing"):
        AFTER.decrypt(token)
    assert issubclass(MasterKeyMissing, RingbackError)


def test_different_parts_have_different_fingerprints() -> None:
    seen = [
        DURING.fingerprint(*parts)
        for parts in ((), ("",), ("", ""), ("ab", "c"), ("a", "bc"), ("abc",), ("a:b",), ("1:a",), ("é",))
    ]
    assert len(set(seen)) == len(seen)
    assert all(len(fingerprint) == 64 for fingerprint in seen)


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.lists(st.text(st.characters(codec="utf-8"))))
def test_fingerprints_are_equal_if_and_only_if_the_parts_are(one: list[str], other: list[str]) -> None:
    assert (DURING.fingerprint(*one) == DURING.fingerprint(*other)) == (one == other)


def test_a_fingerprint_is_made_with_the_newest_key() -> None:
    assert DURING.fingerprint("a") == AFTER.fingerprint("a") != BEFORE.fingerprint("a")


def test_each_purpose_has_its_own_key() -> None:
    assert DURING.fingerprint(TASK) != hashlib.sha256(NEW.encode()).hexdigest()
    assert DURING.hook_secret(TASK) != DURING.fingerprint(TASK)


def test_at_least_one_key_is_required() -> None:
    with pytest.raises(StartError):
        KeyRing([])


def test_the_text_of_a_key_ring_contains_no_key() -> None:
    for shown in (repr(DURING), str(DURING), f"{DURING}"):
        assert shown == "KeyRing(2 keys)"


def test_new_keys_are_unique_and_long() -> None:
    assert len({new_master_key() for _ in range(10)}) == 10
    assert len(new_master_key()) == 43
    assert new_api_key().startswith("rb_")
    assert len(new_api_key()) == 46
    assert new_api_key() != new_api_key()


def test_an_api_key_is_stored_as_its_sha256() -> None:
    assert hash_api_key("rb_key") == hashlib.sha256(b"rb_key").hexdigest()
