"""The report of `make prove`: it says what was found, and what failed."""

from tests.prove.checker import PROMISES, Anomaly
from tests.prove.report import NOT_TRIED, report
from tests.prove.results import CampaignResult, Facts, MutantResult, failed

FACTS = Facts(
    commit="abc123",
    command="make prove SEED=7",
    seed=7,
    began="2026-01-01 00:00",
    seconds=600.0,
    quick=False,
    cores=2,
    python="3.11",
    sqlite="3.40",
    postgresql="18",
    system="Linux",
    root=False,
)
SOUND = CampaignResult(
    campaign="kills",
    what="`kill -9`",
    database="SQLite",
    seed=7,
    rounds=3,
    history="7/kills-sqlite.jsonl",
    counts={"tasks at the end": 12, "answers lost": 5},
    faults={"kill": (4, 3)},
    notes=("the report",),
)
ANOMALY = Anomaly("never bought twice", "the provider made 2 tasks for t1 attempt 1", (4, 9))
CAUGHT = MutantResult(
    mutant="writes no intent", what="no row says so", database="SQLite", seed=7, caught_by=(ANOMALY.promise,)
)


def changed(**values: object) -> CampaignResult:
    fields = {name: getattr(SOUND, name) for name in SOUND.__dataclass_fields__}
    return CampaignResult(**{**fields, **values})


def test_a_sound_proof_says_what_was_promised_done_counted_and_not_tried() -> None:
    text = report(FACTS, [SOUND], [CAUGHT])
    assert "Every promise held in 1 campaigns, and the checker caught 1 of 1 mutants." in text
    assert not failed([SOUND], [CAUGHT])
    for each in (*(promise.sentence for promise in PROMISES), *NOT_TRIED, "| kill | 4 | 3 |", "| answers lost | 5 |"):
        assert each in text
    assert "make prove SEED=7" in text
    assert "- the report (kills)" in text


def test_an_anomaly_fails_the_proof_and_is_found_by_its_lines() -> None:
    broken = changed(anomalies=(ANOMALY,))
    text = report(FACTS, [broken], [CAUGHT])
    assert failed([broken], [CAUGHT])
    assert "**This proof failed.**" in text
    assert (
        "- **never bought twice**: the provider made 2 tasks for t1 attempt 1 (`7/kills-sqlite.jsonl` line 4, 9)"
        in text
    )


def test_a_mutant_that_was_not_caught_fails_the_proof() -> None:
    missed = MutantResult(mutant="drops", what="it drops", database="SQLite", seed=7)
    assert failed([SOUND], [missed])
    assert "**not caught**" in report(FACTS, [SOUND], [missed])


def test_a_campaign_that_broke_fails_the_proof_and_counts_as_no_evidence() -> None:
    broken = changed(broken="TimeoutError: the service did not start\nwith a log")
    text = report(FACTS, [broken], [CAUGHT])
    assert failed([broken], [CAUGHT])
    assert "all 0 campaigns" in text
    assert "- kills on SQLite: TimeoutError: the service did not start" in text
