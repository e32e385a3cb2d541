"""How many administrative changes an organization may make, and that it takes nothing from another."""

import pytest

from receiver.api import change_limit
from receiver.api.change_limit import SECONDS_EACH, ChangeLimit
from receiver.errors import RateLimited


def test_an_organization_is_refused_beyond_its_burst_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_limit, "MOST_AT_ONCE", 3)
    now = 100.0
    limit = ChangeLimit(clock=lambda: now)
    for _ in range(3):
        limit.take(1)
    with pytest.raises(RateLimited) as refused:
        limit.take(1)
    assert refused.value.retry_after == 1
    limit.take(2)


def test_one_more_is_allowed_after_each_interval_however_often_it_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(change_limit, "MOST_AT_ONCE", 1)
    now = 100.0
    limit = ChangeLimit(clock=lambda: now)
    limit.take(1)
    for _ in range(5):
        with pytest.raises(RateLimited):
            limit.take(1)
    now += SECONDS_EACH * 1.01
    limit.take(1)
    with pytest.raises(RateLimited):
        limit.take(1)
