"""The bounds on connections that the settings name."""

from receiver.serving.connection_limits import ConnectionLimits
from receiver.settings import load_settings


def test_without_a_setting_the_bounds_are_their_own_defaults() -> None:
    assert ConnectionLimits.of(load_settings({}, env_file=None)) == ConnectionLimits()


def test_every_setting_of_a_bound_is_taken() -> None:
    settings = load_settings({"RINGBACK_MAX_CONNECTIONS": "7", "RINGBACK_UNREAD_SECONDS": "8"}, env_file=None)
    assert ConnectionLimits.of(settings) == ConnectionLimits(max_connections=7, unread_seconds=8)
