"""Weak keys are refused with a reason, whatever makes them weak; random ones are not."""

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.keyring import new_api_key, new_master_key
from receiver.errors import SettingsError
from receiver.key_strength import weakness
from receiver.settings import load_settings

WEAK = {
    "changemechangeme": "repeats itself",
    "passwordpassword": "repeats itself",
    "0123456789abcdef0123456789abcdef": "repeats itself",
    "1234567890123456": "in a row",
    "qwertyuiopasdfgh": "in a row",
    "a1b2c3d4e5f6g7h8": "in a row",
    "aaaaaaaaaaaaaaaaaaaaaaaa": "1 different",
    "deadbeefdeadbeef": "5 different",
    "supersecretadminkey": "examples",
    "your-secret-key-goes-here": "examples",
    "S3cr3t-P4ssw0rd-2024": "examples",
    "ringback-production-key": "examples",
    "correcthorsebatterystaple": "words",
    "the-weather-in-november": "words",
    "8206153947182650": "too short",
}


@pytest.mark.parametrize(("key", "reason"), WEAK.items())
def test_a_weak_key_is_refused_with_the_reason(key: str, reason: str) -> None:
    assert reason in str(weakness(key))


@pytest.mark.parametrize("key", WEAK)
@pytest.mark.parametrize("name", ["RINGBACK_API_KEY", "RINGBACK_SECRET_KEY"])
def test_the_start_says_which_setting_is_weak_and_what_to_do_and_not_the_key(name: str, key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({name: key}, env_file=None)
    assert refused.value.message.startswith(f"{name}: ")
    assert "openssl rand -hex 32" in refused.value.message
    assert key not in refused.value.message


def test_a_weak_master_key_may_stay_before_a_strong_one_to_decrypt_what_is_stored() -> None:
    assert load_settings({"RINGBACK_SECRET_KEY": f"changemechangeme,{new_master_key()}"}, env_file=None).secret_key
    with pytest.raises(SettingsError, match="add the new one behind it"):
        load_settings({"RINGBACK_SECRET_KEY": f"{new_master_key()},changemechangeme"}, env_file=None)


@pytest.mark.parametrize("_", range(50))
def test_the_keys_that_ringback_makes_are_strong(_: int) -> None:
    assert weakness(new_api_key()) is None
    assert weakness(new_master_key()) is None


def of_any_bytes(data: bytes) -> bool:
    """Return whether bytes have the spread of random ones: those of a few values are what hypothesis likes."""
    return len(set(data)) > len(data) * 3 // 4


@given(st.binary(min_size=32, max_size=32).filter(of_any_bytes))
def test_random_bytes_are_strong_in_every_common_form(data: bytes) -> None:
    forms = (
        data.hex(),
        data.hex().upper(),
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
        base64.b32encode(data).decode(),
    )
    assert all(weakness(form) is None for form in forms)


@pytest.mark.parametrize("_", range(50))
def test_a_random_uuid_is_strong(_: int) -> None:
    assert weakness(str(uuid.uuid4())) is None
