"""What the demo says at the end: for people and for programs."""

from collections import Counter
from typing import Any

from receiver.cli.demo.environment import Environment
from receiver.cli.demo.scenario import ScenarioResult

_MOST_FAULTS = 20


def as_json(result: ScenarioResult, environment: Environment) -> dict[str, Any]:
    """Return the summary for programs. Times are in seconds."""
    checks, progress, client = result.checks, result.progress, result.client
    notices, heard = progress.notices, Counter(progress.heard)
    return {
        "ok": result.good,
        "seconds": round(progress.seconds, 1),
        "in_time": result.in_time,
        "tasks": {"wanted": checks.wanted, "there": sum(checks.by_status.values()), "by_status": checks.by_status},
        "ended_by": checks.ended_by,
        "kills": 1,
        "creates": {
            "refused_connections": client.refused_connections,
            "lost_answers": client.lost_answers,
            "found_again": client.found_again,
        },
        "provider": {
            "webhooks_sent": notices["sent"],
            "webhooks_lost": notices["lost"],
            "webhooks_given_up": notices["given_up"],
            "polls": progress.sandbox.get("polls", 0),
            "tasks_made_twice": checks.sent_again,
            "tasks_never_made": checks.unknown,
        },
        "subscriber": {
            "deliveries": heard["received"],
            "refused": heard["refused"],
            "repeats_ignored": heard["repeats"],
            "forged": heard["forged"],
            "untold": checks.untold,
            "callbacks": heard["callbacks"],
        },
        "seconds_to_tell": {"p50": checks.p50, "p99": checks.p99},
        "faults": checks.faults,
        "url": environment.url,
        "logs": None if result.good else str(environment.folder),
    }


def as_text(result: ScenarioResult, environment: Environment, *, kept: bool) -> str:
    """Return the summary for people."""
    return "\n".join(
        ["", *_numbers(result), "", *_outcome(result, environment), *_how_to_go_on(environment, kept=kept)]
    )


def _numbers(result: ScenarioResult) -> list[str]:
    checks, client, heard, notices = (
        result.checks,
        result.client,
        Counter(result.progress.heard),
        result.progress.notices,
    )
    ends = ", ".join(f"{count} {status}" for status, count in sorted(checks.by_status.items()))
    anew = client.lost_answers - client.found_again
    by_webhook, by_poll = checks.ended_by.get("webhook", 0), checks.ended_by.get("poll", 0)
    return [
        f"  tasks         {checks.wanted} asked for: {ends} (on purpose)",
        f"  the kill      {client.lost_answers} creates lost their answer: {client.found_again} found again, "
        f"{anew} made anew",
        f"  the provider  {checks.sent_again} tasks made twice; {checks.unknown} never made, for the service died "
        "before it could ask",
        f"  the ends      {by_webhook} by webhook, {by_poll} by poll; {notices['lost']} webhooks were lost on purpose, "
        f"{notices['given_up']} met a dead service",
        f"  the telling   {heard['received']} deliveries, {heard['refused']} refused and sent again, "
        f"{heard['repeats']} repeats ignored, every signature checked",
        f"  time to tell  {_seconds(checks.p50)} (p50), {_seconds(checks.p99)} (p99), from an end to its subscriber",
    ]


def _outcome(result: ScenarioResult, environment: Environment) -> list[str]:
    checks = result.checks
    if result.good:
        return [f"Nothing was lost: every task ended and was told. It took {result.progress.seconds:.0f} s."]
    late = [] if result.in_time else ["The time was up before everything had ended."]
    more = len(checks.faults) - _MOST_FAULTS
    return [
        *late,
        *[f"LOST: {fault}" for fault in checks.faults[:_MOST_FAULTS]],
        *([f"... and {more} more"] if more > 0 else []),
        f"The logs and the database are kept in {environment.folder}.",
    ]


def _how_to_go_on(environment: Environment, *, kept: bool) -> list[str]:
    if not kept:
        return [
            f"The API was at {environment.url}; `ringback demo --keep` leaves it there to look around.",
            "For your own tasks: `ringback serve`; the README says how.",
        ]
    return [
        f"The API is at {environment.url}. In another terminal:",
        "",
        f"  export RINGBACK_URL={environment.url} RINGBACK_API_KEY={environment.api_key}",
        "  ringback task list",
        "",
        "Ctrl-C stops everything.",
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
