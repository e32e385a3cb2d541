"""The protocol that every provider's adapter speaks, and what a call to a provider can come to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
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


class CallPurpose(StrEnum):
    """What a call to a provider is for."""

    CREATE = "create"
    BULK = "bulk"
    """To create one of the tasks of a bulk call."""
    POLL = "poll"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class CallerKey:
    """For whom a call is made, and what for. Calls of different lanes take turns, however many wait in each."""

    organization_id: int
    purpose: CallPurpose


Begin = Callable[[], Awaitable[bool]]
"""Asked when the turn of a call has come, before anything is sent; False: it is not to be made any more."""


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

    async def submit(
        self, task: NewTask, *, caller: CallerKey | None = None, begin: Begin | None = None
    ) -> SubmitOutcome:
        """Create the task, unless `begin` says no: then `NotMade`.

        Never raises for what the provider or the network does. Here and below, calls with no lane are in one.
        """
        ...

    async def fetch(
        self, provider_task_id: str, *, attempt: int | None, hidden: str = "", caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Look at one task; the update carries `attempt`. `hidden` is blanked wherever the answer echoes it."""
        ...

    async def cancel(self, provider_task_id: str, *, caller: CallerKey | None = None) -> CancelOutcome:
        """Ask the provider to cancel one task."""
        ...

    async def history(
        self, *, model: str, since: datetime, caller: CallerKey | None = None
    ) -> list[dict[str, Any]] | None:
        """Return the provider's own list of tasks of `model` made since then, raw but without secrets.

        Newest first, at most a few hundred; None when the provider gave no answer.
        """
        ...

    async def account_info(self) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and the body with which the provider answers about our account, to be passed on."""
        ...

    def paused_for(self) -> float:
        """Return for how many seconds more the provider asked to be left alone; 0 if it did not."""
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
