"""The demo's summary, for people and for programs."""

from typing import Any

from receiver.cli.demo.environment import Environment
from receiver.cli.demo.scenario import ScenarioResult

_SHOWN_FAULTS = 20


def as_json(result: ScenarioResult, environment: Environment) -> dict[str, Any]:
    """Return the summary for programs. Times are in seconds."""
    checks, progress, client = result.checks, result.progress, result.client
    webhooks, received = progress.webhooks, environment.subscriber.counts
    return {
        "ok": result.good,
        "seconds": round(progress.seconds, 1),
        "in_time": result.in_time,
        "tasks": {"wanted": progress.tasks, "there": sum(checks.by_status.values()), "by_status": checks.by_status},
        "ended_by": checks.ended_by,
        "kills": environment.service.kills,
        "creates": {
            "refused_connections": client.refused_connections,
            "lost_answers": client.lost_answers,
            "found_again": client.found_again,
        },
        "provider": {
            "webhooks_sent": webhooks["sent"],
            "webhooks_lost": webhooks["lost"],
            "webhooks_given_up": webhooks["given_up"],
            "polls": progress.sandbox["polls"],
            "tasks_made_twice": checks.made_twice,
            "tasks_never_made": checks.unknown,
        },
        "subscriber": {
            "deliveries": received["received"],
            "refused": received["refused"],
            "repeats_ignored": received["repeats"],
            "forged": received["forged"],
            "untold": checks.not_notified,
            "callbacks": received["callbacks"],
        },
        "seconds_to_tell": {"p50": checks.p50, "p99": checks.p99},
        "faults": checks.faults,
        "url": environment.service.url,
        "logs": None if result.good else str(environment.folder),
    }


def as_text(result: ScenarioResult, environment: Environment, *, kept: bool) -> str:
    """Return the summary for people. `kept`: the service keeps running."""
    parts = (_numbers(result, environment), _outcome(result, environment), _next_steps(environment, kept=kept))
    return "\n".join(line for part in parts for line in ("", *part))


def _numbers(result: ScenarioResult, environment: Environment) -> list[str]:
    checks, client = result.checks, result.client
    webhooks, received = result.progress.webhooks, environment.subscriber.counts
    ends = ", ".join(f"{count} {status}" for status, count in sorted(checks.by_status.items()))
    by_webhook, by_poll = checks.ended_by.get("webhook", 0), checks.ended_by.get("poll", 0)
    return [
        f"  tasks          {result.progress.tasks} created: {ends} (some fail or are cancelled on purpose)",
        f"  kill -9        {client.lost_answers} creates lost their answer: {client.found_again} tasks existed after "
        f"the restart, {client.lost_answers - client.found_again} had to be created again",
        f"  provider       {checks.made_twice} tasks made twice, {checks.unknown} not made because of the kill",
        f"  ends           {by_webhook} by webhook, {by_poll} by poll; {webhooks['lost']} webhooks lost on purpose, "
        f"{webhooks['given_up']} given up while the service was down",
        f"  notifications  {received['received']} received, {received['refused']} refused and sent again, "
        f"{received['repeats']} repeats ignored; all signatures valid",
        f"  delay          {_seconds(checks.p50)} (p50), {_seconds(checks.p99)} (p99) from an end to its notification",
    ]


def _outcome(result: ScenarioResult, environment: Environment) -> list[str]:
    faults = result.checks.faults
    if result.good:
        return [
            "Nothing was lost: every task ended, and the subscriber was notified of every end. "
            f"The demo took {result.progress.seconds:.0f} s."
        ]
    return [
        *([] if result.in_time else ["Not everything ended in time."]),
        *[f"FAULT: {fault}" for fault in faults[:_SHOWN_FAULTS]],
        *([f"... and {len(faults) - _SHOWN_FAULTS} more faults"] if len(faults) > _SHOWN_FAULTS else []),
        f"The service's log and database are in {environment.folder}.",
    ]


def _next_steps(environment: Environment, *, kept: bool) -> list[str]:
    url = environment.service.url
    if not kept:
        return [
            f"The API was at {url}. To keep it running and explore the tasks: `ringback demo --keep`.",
            "To run your own tasks: `ringback serve`; README.md shows the first steps.",
        ]
    return [
        f"The API is at {url}. In another terminal:",
        "",
        f"  export RINGBACK_URL={url} RINGBACK_API_KEY={environment.api_key}",
        "  ringback task list",
        "",
        "Ctrl-C stops everything.",
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
