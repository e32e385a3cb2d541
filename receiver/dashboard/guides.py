"""The guides (`deploy/guides`), as pages and as Markdown. The package has a copy of them in the same place."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from receiver.dashboard.prose import GuidePlace, Rendered

_FOLDER = Path(__file__).parents[2] / "deploy" / "guides"


class Guide(Struct, frozen=True):
    """A guide: its name in URLs and in the repository, and what it is called and has, in few words."""

    name: str
    label: str
    summary: str

    def text(self) -> str:
        """Return its text in Markdown."""
        return (_FOLDER / f"{self.name}.md").read_text(encoding="utf-8")


GROUPS: Mapping[str, tuple[Guide, ...]] = {
    "Start": (
        Guide("first-steps", "First steps", "From nothing to a task that has ended and a webhook that was received."),
        Guide("piapi", "From PiAPI", "Move a client of PiAPI over: what to change, what stays, what is more."),
        Guide("pi", "From Pi", "Pi's runs, jobs and webhooks, and where Ringback does more."),
        Guide("replicate", "From Replicate", "The unchanged replicate client, with a model of any provider behind it."),
        Guide("providers", "Providers", "Which providers there are, and what is passed on."),
    ),
    "Use": (
        Guide("webhooks", "Webhooks", "Register a URL, verify what arrives in Python, JavaScript and Go, and retries."),
        Guide("runs", "Runs", "Several tasks in dependency order, each with the results of those before."),
        Guide("outputs", "Outputs", "Where the result of a task is, whatever its model."),
        Guide("dashboard", "The dashboard", "Pages for people: who sees what, sessions, single sign-on."),
        Guide("add-a-provider", "Add a provider", "Describe a provider in a file, without code, in twenty minutes."),
        Guide("agents", "Agents", "Tools for programs in which a language model works (MCP)."),
        Guide("report", "The report", "Whether everything that was created was delivered."),
    ),
    "Operate": (
        Guide("operating", "Operating", "What to set up, to watch and to do, and where each is described."),
        Guide("production", "Into production", "From nothing to a checked service behind a proxy with TLS."),
        Guide("containers", "Containers", "The image, compose, systemd, Kubernetes."),
        Guide("postgresql", "PostgreSQL", "The URL, the start, poolers, TLS, partitions."),
        Guide("scaling", "Scaling", "What one process and one database carry, and what comes next."),
        Guide("performance", "Performance", "What is fast at a million tasks, what is not, and how it is measured."),
        Guide("monitoring", "Monitoring", "Metrics and alerts, and what to do at each."),
        Guide("logs", "Logs", "Every record of the log, and what it means."),
        Guide("tracing", "Tracing", "Spans with OpenTelemetry, exceptions with Sentry."),
        Guide("keys", "Keys", "Every key and secret, and how to replace it without an outage."),
        Guide("backup", "Backups", "Make them, restore them, and what that means for tasks under way."),
        Guide("upgrading", "Upgrading", "New versions beside old ones, and the way back."),
        Guide("doctor", "The doctor", "What `ringback doctor` checks, and what its lines mean."),
    ),
    "Reference": (
        Guide("troubleshooting", "Troubleshooting", "What to do by what you see, and by the code of an error."),
        Guide("proof", "Proof", "What the promises are worth under faults, and what was not tried."),
    ),
}
"""All guides, in the order of the navigation."""
_REFERENCE = "the reference of the API"
GUIDES: Mapping[str, Guide] = {guide.name: guide for group in GROUPS.values() for guide in group}


@cache
def rendered_guide(name: str, prefix: str) -> "Rendered":
    """Return a guide as HTML whose links begin with a proxy's prefix. That is a setting, so there is one of it."""

    # Imported here, so that no start waits for what reads Markdown.
    from receiver.dashboard.prose import render_markdown

    def place_of(other: str) -> "GuidePlace | None":
        label = _REFERENCE if other == "api" else GUIDES[other].label if other in GUIDES else None
        return None if label is None else (f"{prefix}/docs/{other}", label)

    return render_markdown(GUIDES[name].text(), place_of)
