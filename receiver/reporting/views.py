"""A report as a JSON value, as the API returns it."""

from typing import Any

from msgspec.structs import asdict

from receiver.domain.gaps import MEANINGS
from receiver.domain.representations import iso
from receiver.reporting.findings import MOST_LISTED, Account, Findings, Listing, Made
from receiver.storage.report.subscriptions import ReportedWebhook


def native_report(findings: Findings) -> dict[str, Any]:
    """Return a report. Every list has at most `MOST_LISTED` items; the `count` beside it is of all."""
    return {
        "object": "report",
        "since": iso(findings.since),
        "until": iso(findings.until),
        "is_cut": findings.is_cut,
        "adds_up": findings.adds_up,
        "tasks": _made(findings.tasks),
        "runs": _made(findings.runs),
        "events": {"count": findings.events.total(), "by_type": dict(sorted(findings.events.items()))},
        "deliveries": {
            "total": asdict(findings.deliveries),
            "webhooks": {
                "count": len(findings.webhooks),
                "shown": [_webhook(*each) for each in _most_interesting(findings)],
            },
            "callbacks": asdict(findings.callbacks),
            "replays": dict(sorted(findings.replays.items())),
        },
        "gaps": {
            "count": sum(listing.count for listing in findings.gaps.values()),
            "kinds": [
                {"kind": kind, "meaning": MEANINGS[kind], **_listing(listing)}
                for kind, listing in sorted(findings.gaps.items())
            ],
        },
        "dead": _listing(findings.dead),
        "overdue_tasks": _listing(findings.overdue_tasks),
        "overdue_deliveries": _listing(findings.overdue_deliveries),
    }


def _made(made: Made) -> dict[str, Any]:
    return {
        "created": made.created,
        "ended": made.ended,
        "open": made.open,
        "by_status": dict(sorted(made.by_status.items())),
    }


def _most_interesting(findings: Findings) -> list[tuple[ReportedWebhook, Account]]:
    """Return the webhooks to list: those that do not add up first, then those with the most events."""
    by_interest = sorted(findings.webhooks, key=lambda each: (each[1].adds_up, -each[1].events))
    return by_interest[:MOST_LISTED]


def _webhook(webhook: ReportedWebhook, account: Account) -> dict[str, Any]:
    return {
        "webhook_id": webhook.uid,
        "endpoint_url": webhook.endpoint_url,
        "state": webhook.state,
        "changed_at": iso(webhook.changed_at),
        **asdict(account),
        "adds_up": account.adds_up,
    }


def _listing(listing: Listing) -> dict[str, Any]:
    return {"count": listing.count, "shown": listing.shown}
