"""The protocol that every provider's adapter speaks, and what a call to a provider can come to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from receiver.domain.updates import ProviderUpdate


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider made the task and says so."""

    update: ProviderUpdate


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider said no for good (a 4xx): `status` and `body` are its own, to be passed on."""

    status: int
    message: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NotMade:
    """Nothing was made, for certain (429, 503, a connection that never was): it may be sent again."""

    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The provider broke on it (a 500): this attempt failed."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class UnknownOutcome:
    """Cut off after the request was sent (or 502, 504, an answer that makes no sense): made, or not made."""

    message: str


SubmitOutcome = Accepted | Refused | NotMade | FailedAttempt | UnknownOutcome


@dataclass(frozen=True, slots=True)
class Found:
    """The provider knows the task."""

    update: ProviderUpdate


@dataclass(frozen=True, slots=True)
class Missing:
    """The provider does not know the task (404, or its own words for it)."""

    message: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing was learned: the provider is down, slow, limiting us, or makes no sense."""

    message: str
    retry_after: float | None = None


FetchOutcome = Found | Missing | NoAnswer


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The provider cancelled it."""

    message: str


CancelOutcome = Cancelled | Refused | Missing | NoAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What is asked of a provider: its create call, in our own form."""

    model: str
    task_type: str
    input: dict[str, Any]
    config: dict[str, Any] | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None


class MalformedUpdate(ValueError):
    """A body that is no task: not JSON, or not of the provider's form. The message says what is wrong."""


class Provider(Protocol):
    """One task API that we call and that calls us back."""

    name: str

    async def submit(self, task: NewTask) -> SubmitOutcome:
        """Create the task. Never raises for what the provider or the network does."""
        ...

    async def fetch(self, provider_task_id: str, *, attempt: int, hidden: str = "") -> FetchOutcome:
        """Look at one task; the update carries `attempt`. `hidden` is blanked wherever the answer echoes it."""
        ...

    async def cancel(self, provider_task_id: str) -> CancelOutcome:
        """Ask the provider to cancel one task."""
        ...

    async def history(self, *, model: str, since: datetime) -> list[dict[str, Any]] | None:
        """Return the provider's own list of tasks of `model` made since then, raw but without secrets.

        Newest first, at most a few hundred; None when the provider gave no answer.
        """
        ...

    def parse_webhook(self, body: bytes, *, attempt: int | None = None) -> ProviderUpdate:
        """Turn an inbound webhook's body into an update. Raises `MalformedUpdate`."""
        ...

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        """Turn one item of `history` into an update (source `poll`). Raises `MalformedUpdate`."""
        ...

    def redact(self, body: bytes) -> str:
        """Return an inbound body as text without the secrets that it echoes, whatever is wrong with it."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
