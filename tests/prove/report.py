"""The report of a proof."""

from collections.abc import Sequence
from pathlib import Path

from tests.prove.results import CampaignResult, Facts, MutantResult


def write_report(out: Path, facts: Facts, campaigns: Sequence[CampaignResult], mutants: Sequence[MutantResult]) -> Path:
    """Write the report into the folder `out`; return its path."""
    path = out / "report.md"
    lines = [f"# Proof of {facts.commit}", ""]
    lines += [f"- {each.campaign} on {each.database}: {len(each.anomalies)}" for each in campaigns]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
