"""The parts of `make prove` that decide by rules: the order of its campaigns, the weather, the check of signatures."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import standardwebhooks

from tests.prove.history import History, read
from tests.prove.plan import CAMPAIGNS, QUICK_CAMPAIGNS
from tests.prove.schedule import Job, run_all
from tests.prove.signatures import is_signed, new_secret
from tests.prove.stores import Kind
from tests.prove.weather import LOOK_FAULTS, SUBMIT_FAULTS, Weather

pytestmark = pytest.mark.no_database("it needs none")


async def test_postgresql_is_used_by_one_campaign_at_a_time_while_another_uses_sqlite() -> None:
    running: Counter[Kind] = Counter()
    most: Counter[Kind] = Counter()
    together = asyncio.Barrier(2)

    def job(kind: Kind) -> Job:
        async def run() -> None:
            running[kind] += 1
            most[kind] = max(most[kind], running[kind])
            await together.wait()
            running[kind] -= 1

        return Job(kind, run)

    async with asyncio.timeout(10):
        await run_all([*(job("postgresql") for _ in range(3)), *(job("sqlite") for _ in range(5))])
    assert most == {"postgresql": 1, "sqlite": 2}


def test_a_signature_is_right_exactly_where_the_public_verifier_finds_it_right() -> None:
    secret, body, now = new_secret("m1"), b'{"type": "task.completed"}', datetime.now(UTC)
    signature = standardwebhooks.Webhook(secret).sign("event-1", now, body.decode())
    headers = {"webhook-id": "event-1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    assert is_signed(secret, headers, body)
    assert is_signed(secret, {**headers, "webhook-signature": f"v1,AAAA {signature}"}, body)
    assert not is_signed(secret, headers, body + b" ")
    assert not is_signed(new_secret("m2"), headers, body)
    assert not is_signed(secret, {**headers, "webhook-id": "event-2"}, body)
    assert not is_signed(secret, {}, body)


def test_fair_weather_has_no_faults_and_bad_weather_has_them_in_their_shares() -> None:
    rng = random.Random(1)
    assert {Weather().of_create(rng).fault for _ in range(500)} == {None}
    bad = Weather(submit={"503": 0.2, "cut after": 0.3}, look={"429": 1.0})
    drawn = Counter(bad.of_create(rng).fault for _ in range(2000))
    assert drawn.keys() == {None, "503", "cut after"}
    assert abs(drawn["503"] - 400) < 100
    assert abs(drawn["cut after"] - 600) < 100
    assert bad.of_look(rng).status == 429


def test_a_call_makes_a_task_exactly_if_its_fault_does_not_say_before_or_refuse() -> None:
    for name, answering in {**SUBMIT_FAULTS, **LOOK_FAULTS}.items():
        is_late = name.endswith("after") or "slow" in name
        assert answering.makes == is_late, name


def test_a_history_has_its_lines_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    with History(tmp_path / "deep" / "one.jsonl") as history:
        number = history.call("create", key=None, mark="m1")
        history.write("client", "answer", call=number, status=200)
        history.write("provider", "made", at_moment=datetime(2026, 1, 1, tzinfo=UTC))
    lines = list(read(history.path))
    assert [line["n"] for line in lines] == [1, 2, 3]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert (lines[0]["call"], lines[1]["call"], lines[1]["status"]) == (number, number, 200)
    assert history.answers == {200: 1}
    assert history.count("provider", "made") == 1


def test_each_campaign_has_a_name_of_its_own_and_quick_ones_exist() -> None:
    names = [campaign.name for campaign in CAMPAIGNS]
    assert len(names) == len(set(names))
    assert {(campaign.name, kind) for campaign in CAMPAIGNS for kind in campaign.kinds} >= QUICK_CAMPAIGNS
