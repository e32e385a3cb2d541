"""The limits of an organization: what is given changes the defaults, and what makes no sense is refused by name."""

from typing import Any

import pytest

from receiver.errors import SettingsError
from receiver.organization_limits import LIMIT_NAMES, UNLIMITED, OrganizationLimits, default_limits
from receiver.settings import load_settings


def test_what_is_not_given_keeps_its_default() -> None:
    defaults = OrganizationLimits()
    changed = defaults.with_values({"webhooks": 5})
    assert changed.webhooks == 5
    assert all(getattr(changed, name) == getattr(defaults, name) for name in LIMIT_NAMES if name != "webhooks")
    assert defaults.with_values(None) == defaults


def test_a_limit_can_be_lifted_and_can_be_none_at_all() -> None:
    changed = OrganizationLimits().with_values({"streams": UNLIMITED, "open_tasks": None, "running_replays": 0})
    assert (changed.streams, changed.open_tasks, changed.running_replays) == (None, None, 0)


def test_numbers_may_be_texts_and_rates_may_have_fractions() -> None:
    changed = OrganizationLimits().with_values({"webhooks": "7", "creates_per_second": "0.5"})
    assert (changed.webhooks, changed.creates_per_second) == (7, 0.5)


@pytest.mark.parametrize("value", [-1, "-1", "many", True, float("nan"), float("inf"), 1.5, "1e400", [], {}])
def test_what_is_no_number_is_refused_by_the_name_of_the_limit(value: Any) -> None:
    with pytest.raises(ValueError, match="webhooks"):
        OrganizationLimits().with_values({"webhooks": value})


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"tenants is not a limit; the limits are webhooks, streams"):
        OrganizationLimits().with_values({"tenants": 1})


def test_the_setting_changes_the_defaults_of_all_organizations() -> None:
    changed = default_limits(" webhooks=500, creates_per_second = unlimited,")
    assert changed == OrganizationLimits(webhooks=500, creates_per_second=None)
    assert default_limits("") == OrganizationLimits()


@pytest.mark.parametrize("text", ["webhooks", "webhooks=", "dreams=1", "webhooks=1;streams=2", "=5"])
def test_a_wrong_setting_stops_the_start_by_its_name_and_with_the_other_wrong_ones(text: str) -> None:
    environment = {"RINGBACK_ORGANIZATION_LIMITS": text, "RINGBACK_KEY_RATE": "fast"}
    with pytest.raises(SettingsError) as wrong:
        load_settings(environment, env_file=None)
    names = [fault.split(": ")[0] for fault in wrong.value.message.splitlines()]
    assert sorted(names) == ["RINGBACK_KEY_RATE", "RINGBACK_ORGANIZATION_LIMITS"]
