"""What the demo says at the end: for people and for programs."""

from collections import Counter
from typing import Any

from receiver.cli.demo.play import Played
from receiver.cli.demo.stage import Stage

_MOST_FAULTS = 20


def as_json(played: Played, stage: Stage) -> dict[str, Any]:
    """Return the summary for programs. Times are in seconds."""
    verdict, board, client = played.verdict, played.board, played.client
    notices, heard = board.notices, Counter(board.heard)
    return {
        "ok": played.good,
        "seconds": round(board.seconds, 1),
        "in_time": played.in_time,
        "tasks": {"wanted": verdict.wanted, "there": sum(verdict.by_status.values()), "by_status": verdict.by_status},
        "ended_by": verdict.ended_by,
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
            "polls": board.sandbox.get("polls", 0),
            "tasks_made_twice": verdict.sent_again,
            "tasks_never_made": verdict.unknown,
        },
        "subscriber": {
            "deliveries": heard["received"],
            "refused": heard["refused"],
            "repeats_ignored": heard["repeats"],
            "forged": heard["forged"],
            "untold": verdict.untold,
            "callbacks": heard["callbacks"],
        },
        "seconds_to_tell": {"p50": verdict.p50, "p99": verdict.p99},
        "faults": verdict.faults,
        "url": stage.url,
        "logs": None if played.good else str(stage.folder),
    }


def as_text(played: Played, stage: Stage, *, kept: bool) -> str:
    """Return the summary for people."""
    return "\n".join(["", *_numbers(played), "", *_outcome(played, stage), *_how_to_go_on(stage, kept=kept)])


def _numbers(played: Played) -> list[str]:
    verdict, client, heard, notices = played.verdict, played.client, Counter(played.board.heard), played.board.notices
    ends = ", ".join(f"{count} {status}" for status, count in sorted(verdict.by_status.items()))
    anew = client.lost_answers - client.found_again
    by_webhook, by_poll = verdict.ended_by.get("webhook", 0), verdict.ended_by.get("poll", 0)
    return [
        f"  tasks         {verdict.wanted} asked for: {ends} (on purpose)",
        f"  the kill      {client.lost_answers} creates lost their answer: {client.found_again} found again, "
        f"{anew} made anew",
        f"  the provider  {verdict.sent_again} tasks made twice; {verdict.unknown} never made, for the service died "
        "before it could ask",
        f"  the ends      {by_webhook} by webhook, {by_poll} by poll; {notices['lost']} webhooks were lost on purpose, "
        f"{notices['given_up']} met a dead service",
        f"  the telling   {heard['received']} deliveries, {heard['refused']} refused and sent again, "
        f"{heard['repeats']} repeats ignored, every signature checked",
        f"  time to tell  {_seconds(verdict.p50)} (p50), {_seconds(verdict.p99)} (p99), from an end to its subscriber",
    ]


def _outcome(played: Played, stage: Stage) -> list[str]:
    verdict = played.verdict
    if played.good:
        return [f"Nothing was lost: every task ended and was told. It took {played.board.seconds:.0f} s."]
    late = [] if played.in_time else ["The time was up before everything had ended."]
    more = len(verdict.faults) - _MOST_FAULTS
    return [
        *late,
        *[f"LOST: {fault}" for fault in verdict.faults[:_MOST_FAULTS]],
        *([f"... and {more} more"] if more > 0 else []),
        f"The logs and the database are kept in {stage.folder}.",
    ]


def _how_to_go_on(stage: Stage, *, kept: bool) -> list[str]:
    if not kept:
        return [
            f"The API was at {stage.url}; `ringback demo --keep` leaves it there to look around.",
            "For your own tasks: `ringback serve`; the README says how.",
        ]
    return [
        f"The API is at {stage.url}. In another terminal:",
        "",
        f"  export RINGBACK_URL={stage.url} RINGBACK_API_KEY={stage.api_key}",
        "  ringback task list",
        "",
        "Ctrl-C stops everything.",
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
