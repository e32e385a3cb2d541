"""The report of a proof, as Markdown that can be read alone: what was promised, what was done, and what was found."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.prove.checker import PROMISES
from tests.prove.checker.counts import BESIDES, LOAD
from tests.prove.results import CampaignResult, Facts, MutantResult, failed

NAME = "report.md"
NOT_TRIED: tuple[str, ...] = (
    "a power cut: processes and PostgreSQL are killed, but the machine and its disk keep what was given to them",
    "disks that lie about what they stored, or that change bits",
    "a PostgreSQL standby that takes over (a test of the suite does that, without load), replication that loses data",
    "a network that loses or delays packets between the service and its database; connections are cut and held instead",
    "clocks that drift; they step",
    "out of memory, out of file descriptors, out of processes",
    "SQLite on a network file system, and two services on one file",
    "more than two replicas, and more load than a few dozen requests a second",
    "upgrades: all processes are of one version",
    "attackers with a valid key or with a task's secret",
    "providers other than PiAPI's contract",
)
"""What the fault model leaves out."""
_MOST_ANOMALIES = 50


def write_report(
    folder: Path, facts: Facts, campaigns: Sequence[CampaignResult], mutants: Sequence[MutantResult]
) -> Path:
    """Write the report into `folder`; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(report(facts, campaigns, mutants), encoding="utf-8")
    return path


def report(facts: Facts, campaigns: Sequence[CampaignResult], mutants: Sequence[MutantResult]) -> str:
    """Return the text of the report."""
    parts = (
        _summary(facts, campaigns, mutants),
        _promises(campaigns),
        _fault_model(campaigns),
        _faults(campaigns),
        _campaigns(campaigns),
        _numbers("Load", "What the campaigns did, both databases apart.", LOAD, campaigns),
        _numbers(
            "No anomaly, and not hidden",
            "What a user of the service may see, and what no promise excludes. A false failure is a task that is "
            "failed at the end although its provider completed it; one that healed was corrected to completed, under "
            "its own id.",
            BESIDES,
            campaigns,
        ),
        _anomalies(campaigns),
        _mutants(mutants),
        _again(facts),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(facts: Facts, campaigns: Sequence[CampaignResult], mutants: Sequence[MutantResult]) -> str:
    anomalies = sum(len(each.anomalies) for each in campaigns)
    broken = sum(each.broken is not None for each in campaigns) + sum(each.broken is not None for each in mutants)
    caught = sum(bool(each.caught_by) for each in mutants)
    verdict = "Every promise held" if not anomalies else f"**{anomalies} anomalies**"
    lines = [
        "# The promises under faults",
        "",
        "What `make prove` found: real processes of the service, on real databases, with a provider, subscribers and "
        "clients on the same machine, while faults were done to all of them; then a checker compared what each party "
        "saw with every promise. Everything in this paper is written by that command.",
        "",
        f"{verdict} in {len(campaigns)} campaigns, and the checker caught {caught} of {len(mutants)} mutants"
        + (f"; **{broken} of them broke in the harness**." if broken else ".")
        + (" **This proof failed.**" if failed(campaigns, mutants) else ""),
        "",
        _table(("", ""), _facts(facts)),
    ]
    return "\n".join(lines)


def _facts(facts: Facts) -> list[tuple[str, str]]:
    return [
        ("commit", facts.commit),
        ("command", f"`{facts.command}`"),
        ("seed", str(facts.seed)),
        ("began", f"{facts.began} UTC, and took {facts.seconds / 60:.1f} minutes"),
        ("kind", "quick: a selection" if facts.quick else "whole"),
        ("machine", f"{facts.system}, {facts.cores} cores"),
        ("software", f"Python {facts.python}, SQLite {facts.sqlite}, PostgreSQL {facts.postgresql}"),
        ("user", "root" if facts.root else "not root"),
    ]


def _promises(campaigns: Sequence[CampaignResult]) -> str:
    counts = Counter(anomaly.promise for each in campaigns for anomaly in each.anomalies)
    rows = [(promise.name, promise.sentence, _bold(counts[promise.name])) for promise in PROMISES]
    checked = sum(each.broken is None for each in campaigns)
    return "\n".join(
        (
            "## Promises",
            "",
            f"Each sentence was checked against the histories of all {checked} campaigns.",
            "",
            _table(("promise", "in words", "anomalies"), rows),
            "",
            'The exception to "never bought twice": a provider that answers a create call with 429 or 503, which mean '
            "that nothing was made, and has made the task all the same. That is counted below.",
        )
    )


def _fault_model(campaigns: Sequence[CampaignResult]) -> str:
    tried: dict[str, tuple[str, list[str]]] = {}
    for each in campaigns:
        tried.setdefault(each.campaign, (each.what, []))[1].append(each.database)
    rows = [(name, what, ", ".join(databases)) for name, (what, databases) in tried.items()]
    lines = ["## Fault model", "", "Tried, each under load:", "", _table(("campaign", "what is done", "on"), rows), ""]
    lines += ["**Not** tried:", "", *(f"- {each}" for each in NOT_TRIED)]
    notes = sorted({(note, each.campaign) for each in campaigns for note in each.notes})
    if notes:
        by_note: dict[str, list[str]] = defaultdict(list)
        for note, campaign in notes:
            by_note[note].append(campaign)
        lines += ["", "Left out in this proof:", ""]
        lines += [f"- {note} ({', '.join(names)})" for note, names in by_note.items()]
    return "\n".join(lines)


def _faults(campaigns: Sequence[CampaignResult]) -> str:
    totals: dict[str, list[int]] = {}
    for each in campaigns:
        for name, (done, hit) in each.faults.items():
            total = totals.setdefault(name, [0, 0])
            total[0] += done
            total[1] += hit
    rows = [(name, str(done), str(hit)) for name, (done, hit) in sorted(totals.items())]
    if not rows:
        return ""
    return "\n".join(
        (
            "## Faults",
            "",
            "How often each was done, and how often it met what it was meant for.",
            "",
            _table(("fault", "done", "hit"), rows),
        )
    )


def _campaigns(campaigns: Sequence[CampaignResult]) -> str:
    rows = []
    for each in campaigns:
        hit = sum(hits for _, hits in each.faults.values())
        numbers = (each.counts.get(name, 0) for name in ("tasks at the end", "provider tasks made"))
        received = each.counts.get("deliveries received", 0)
        found = "broke" if each.broken else _bold(len(each.anomalies))
        place = (each.campaign, each.database, str(each.rounds), f"{each.seconds:.0f}")
        rows.append((*place, str(hit), *map(str, numbers), str(received), found, f"`{each.history}`"))
    names = ("campaign", "on", "rounds", "seconds", "faults hit", "tasks", "made", "deliveries", "anomalies", "history")
    lines = ["## Campaigns", "", _table(names, rows)]
    broken = [f"- {each.campaign} on {each.database}: {_first_line(each.broken)}" for each in campaigns if each.broken]
    if broken:
        lines += ["", "Broke in the harness, so that nothing is known of them:", "", *broken]
    return "\n".join(lines)


def _numbers(title: str, words: str, names: Iterable[str], campaigns: Sequence[CampaignResult]) -> str:
    databases = sorted({each.database for each in campaigns})
    sums = {
        (name, database): sum(each.counts.get(name, 0) for each in campaigns if each.database == database)
        for name in names
        for database in databases
    }
    rows = [(name, *(str(sums[name, database]) for database in databases)) for name in names]
    return "\n".join((f"## {title}", "", words, "", _table(("", *databases), rows)))


def _anomalies(campaigns: Sequence[CampaignResult]) -> str:
    found = [(each, anomaly) for each in campaigns for anomaly in each.anomalies]
    if not found:
        return "## Anomalies\n\nNone."
    lines = ["## Anomalies", "", "With the lines of the history that show each.", ""]
    for each, anomaly in found[:_MOST_ANOMALIES]:
        where = f"`{each.history}`" + (f" line {', '.join(map(str, anomaly.lines[:6]))}" if anomaly.lines else "")
        lines.append(f"- **{anomaly.promise}**: {anomaly.text} ({where})")
    if len(found) > _MOST_ANOMALIES:
        lines.append(f"- and {len(found) - _MOST_ANOMALIES} more")
    return "\n".join(lines)


def _mutants(mutants: Sequence[MutantResult]) -> str:
    if not mutants:
        return ""
    rows = [
        (each.what, each.database, _caught(each), _cell(each.anomaly.text) if each.anomaly else "") for each in mutants
    ]
    return "\n".join(
        (
            "## Mutants",
            "",
            "Proof that the checker can fail: each is a copy of the service with one fault in its code, run in the "
            "same way, and the checker has to find what it breaks.",
            "",
            _table(("a service in which", "on", "caught by", "for example"), rows),
        )
    )


def _caught(result: MutantResult) -> str:
    if result.broken:
        return f"**broke**: {_first_line(result.broken)}"
    if not result.caught_by:
        return "**not caught**"
    return ", ".join(result.caught_by) + (f" (with {result.tries} seeds)" if result.tries > 1 else "")


def _again(facts: Facts) -> str:
    return "\n".join(
        (
            "## Do it again",
            "",
            "On a machine with git, make and Python 3.11 or newer; it brings its own PostgreSQL:",
            "",
            "```sh",
            f"git checkout {facts.commit.split()[0]}",
            facts.command,
            "```",
            "",
            "The seed decides the load, the faults, and when each is done relative to the progress of the load. The "
            "scheduling of processes is not repeatable, so that two proofs with one seed are alike and not equal. The "
            "histories are lines of JSON, which `tests/prove/README.md` describes.",
        )
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _bold(number: int) -> str:
    return f"**{number}**" if number else "0"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
