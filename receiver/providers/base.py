"""The protocol of a provider's adapter, and the outcomes of its calls.

An adapter translates between one provider's API and Ringback's own types. It holds connections and a rate limiter, but
no task: what is known of a task is in the database, and only `receiver.tracking` changes it. The adapter's methods are
called in this order in the life of a task:

1. `submit` creates the task at the provider. The task is on disk already. Just before the request is sent the adapter
   awaits `confirm`, which writes to disk that the task is being sent; if it returns False, nothing may be sent.
2. `parse_webhook` reads each webhook that the provider sends for the task, after `check_signature` has found it good
   where `capabilities.proofs` names a proof of its own. `redact` makes text of a body that could not be applied, so
   that a person can read it.
3. `fetch` polls the task when no update has arrived for some time, or when a client asks for a refresh.
4. `history` and `parse_task` find a task whose create call got no response.
5. `cancel`, if a client asks for it, or as a recall after the cancel of its run (`receiver.tracking.recall`).

`forward` is apart from that: it passes on what a client asks of the provider's other APIs, which make no task as a
rule. If an answer is a task nevertheless, `task_in_answer` finds it.

A webhook can arrive before `submit` has returned, and any call can be made by another process than the one before.

No method raises an exception for what the provider or the network does: they return an outcome, and the outcome decides
what `receiver.tracking` does next. An adapter that reports the wrong one makes Ringback pay twice, or lose a task.

| `submit` returns | the task |
|---|---|
| `Accepted` | takes the update's state, and is polled from now on |
| `Refused` | fails at once, with the provider's status and message; it is not retried automatically |
| `FailedAttempt` | retries with a backoff if it has attempts left, else it fails |
| `NotMade` | stays queued, and the same attempt is sent again after a delay |
| `UnknownOutcome` | is not sent again; it fails when `history`, complete, does not have it (`submission_unknown`) |

| `fetch` returns | the task |
|---|---|
| `Found` | takes the update; an answer without a change still shows that the provider has the task |
| `Missing` | is polled a few more times, for a new task may not be visible yet; then it fails (`provider_lost_task`) |
| `NoAnswer` | is polled again later, after `retry_after` at least; after a long silence it fails (`timed_out`) |

| `cancel` returns | the client gets | a recall |
|---|---|---|
| `Cancelled` | success, and the task is cancelled | the same |
| `CancelRequested` | success; the task goes on, and is polled soon | is settled |
| `Refused` | the provider's own status and body; the task goes on | is given up, unless it is Ringback's key |
| `Missing` | 404; the task stays as it is | is repeated, and given up after several |
| `NoAnswer` | 503, and may try again; the task goes on | is repeated |

| `forward` returns | the client gets |
|---|---|
| `ForwardedAnswer` | the provider's own status and body, as they come |
| `NotForwarded` | its status and message |

Every update that an adapter returns goes to `receiver.tracking.apply`, from whatever method it came: the adapter does
not compare it with anything that it returned before.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self

from msgspec import Struct

from receiver.domain.task_state import TaskState
from receiver.domain.updates import ProviderUpdate
from receiver.hidden_fields import HidesFields
from receiver.providers.capabilities import Capabilities
from receiver.providers.forwarded import ForwardedRequest, ForwardOutcome
from receiver.providers.webhook_outcomes import Headers, Signature, WebhookOutcome

PROVIDER_UNAUTHORIZED = "provider_unauthorized"
"""The `code` of a refusal of Ringback's own key: nothing that the client sent is wrong."""


class Accepted(Struct, frozen=True):
    """The provider made the task and confirmed it."""

    update: ProviderUpdate


class Refused(Struct, frozen=True):
    """The provider refused for good (a 4xx). `status` and `body` are its own, to be passed on to the client.

    `code` is Ringback's own word for the reason, None where the provider's status is the code. `detail` is what the
    provider said besides the message, for the task's error; None if that is all.
    """

    status: int
    message: str
    body: dict[str, Any]
    code: str | None = None
    detail: Any = None


class _Told:
    """What an outcome of a call says in `message`, to be kept with the task, and of it in a log.

    `seen` describes a response without repeating it; it is empty where `message` is Ringback's own.
    """

    __slots__ = ()
    message: str
    seen: str

    @property
    def for_log(self) -> str:
        """What a log may have: nothing of a response's body, which may repeat what the client sent."""
        return self.seen or self.message


@dataclass(frozen=True, slots=True)
class NotMade(_Told):
    """The provider certainly made nothing (429, 503, no connection was established): the task may be sent again.

    `retry_after` is in seconds, if the provider gave it.
    """

    message: str
    retry_after: float | None = None
    seen: str = field(default="", compare=False)


class FailedAttempt(Struct, frozen=True):
    """The call failed and certainly made nothing, and sending it again soon would not help: this attempt failed."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class UnknownOutcome(_Told):
    """The provider may or may not have made the task.

    The connection was lost after the request was sent, or the response was a 502, a 504 or one that cannot be used.
    `status` is set where the response says itself that the call failed (a 500): if a complete list does not have the
    task some seconds later, this attempt failed, with this status.
    """

    message: str
    status: int | None = None
    seen: str = field(default="", compare=False)


SubmitOutcome = Accepted | Refused | NotMade | FailedAttempt | UnknownOutcome


class Found(Struct, frozen=True):
    """The provider knows the task."""

    update: ProviderUpdate


@dataclass(frozen=True, slots=True)
class Missing(_Told):
    """The provider does not know the task (404, or the provider's own way to report it)."""

    message: str
    seen: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NoAnswer(_Told):
    """The call brought no information: the provider is down, slow, limits the calls, or its response is unusable.

    `retry_after` is in seconds, if the provider gave it. `unauthorized`: Ringback's own key is missing or refused.
    """

    message: str
    retry_after: float | None = None
    seen: str = field(default="", compare=False)
    unauthorized: bool = field(default=False, compare=False)


FetchOutcome = Found | Missing | NoAnswer


class History(Struct, frozen=True):
    """A part of the provider's own list of tasks, raw but without secrets, newest first, each once.

    `is_complete` says whether every task of the time that was asked about was in what the provider listed: only then
    does it prove anything that a task is not there. An answer that was cut, or none at all, is not complete.
    """

    tasks: list[dict[str, Any]]
    is_complete: bool


class Cancelled(Struct, frozen=True):
    """The provider cancelled the task."""

    message: str


class CancelRequested(Struct, frozen=True):
    """The provider has taken note of the wish: whether the task is cancelled shows when it ends."""

    message: str


CancelOutcome = Cancelled | CancelRequested | Refused | Missing | NoAnswer


class CallPurpose(StrEnum):
    """What a call to a provider is for."""

    CREATE = "create"
    BULK = "bulk"
    """To create a task of a bulk call."""
    POLL = "poll"
    CANCEL = "cancel"
    FORWARD = "forward"


class CallerKey(Struct, frozen=True):
    """For which organization a call is made, and for what purpose.

    Calls wait for the rate limit in one queue per key, and the queues take turns: many calls of one key do not delay
    those of another.
    """

    organization_id: int
    purpose: CallPurpose


class ProviderTask(Struct, frozen=True):
    """A task of the provider's, as an adapter asks for it.

    `id` is what people see of it. `handle` is what an update's `handle` said of it; None if the update that was the
    first to name the task had none, so an adapter must find its way by the rest. `model` and `task_type` are the
    client's, "" for a task of which no more is known.
    """

    id: str
    handle: Mapping[str, Any] | None = None
    model: str = ""
    task_type: str = ""

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the provider's task of a row that has its id at the provider."""
        return cls(row["provider_task_id"], row["handle"], row["model"], row["task_type"])

    @classmethod
    def of_state(cls, task: TaskState) -> Self:
        """Return the provider's task of a state that has its id at the provider."""
        return cls(str(task.provider_task_id), task.handle, task.model, task.task_type)


ConfirmSend = Callable[[], Awaitable[bool]]
"""Awaited when the rate limit admits a call, just before it is sent; on False the call is not made."""


class NewTask(HidesFields, Struct, frozen=True, kw_only=True):
    """The arguments of a provider's create call, in Ringback's own form.

    `webhook_url` is where the provider shall report, None if Ringback has no public URL or the provider takes none;
    `webhook_secret` is what it shall send back as proof, or what the URL has as proof, so that it is redacted in
    answers. `reference` is our own name for this attempt, for providers that can be asked for it.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"webhook_url", "webhook_secret"})

    model: str
    task_type: str
    input: dict[str, Any]
    config: dict[str, Any] | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    reference: str = ""


class AccountCheck(Struct, frozen=True, kw_only=True):
    """What one call about the account, which costs nothing, has shown.

    `fault` is what is wrong, "" if the provider accepted the key; `is_reached` says whether it answered at all,
    `is_asked` whether the account has what it takes to ask. `date` is its clock as an HTTP date, `calls_left` what it
    says that its rate limit still lets through, `credits` what is left of the account's money in its own unit; None
    where it does not say.
    """

    is_reached: bool
    fault: str = ""
    is_asked: bool = True
    date: str | None = None
    calls_left: str | None = None
    credits: float | None = None


class MalformedUpdate(ValueError):
    """A body that is not a task: not JSON, or not in the provider's form. The message says what is wrong."""


class Provider(Protocol):
    """One task API that Ringback calls and that sends webhooks back. The module's docstring says what calls what.

    `caller` decides in which queue a call waits for the rate limit; calls without one share a queue.
    """

    name: str
    capabilities: Capabilities

    async def submit(
        self, task: NewTask, *, caller: CallerKey | None = None, confirm: ConfirmSend | None = None
    ) -> SubmitOutcome:
        """Create the task, unless `confirm` returns False: then the outcome is `NotMade`."""
        ...

    async def fetch(
        self, task: ProviderTask, *, attempt: int | None, hidden: str = "", caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Poll one task; the update carries `attempt`. `hidden` is a secret that is redacted from the response."""
        ...

    async def cancel(self, task: ProviderTask, *, caller: CallerKey | None = None) -> CancelOutcome:
        """Ask the provider to cancel one task."""
        ...

    async def history(
        self,
        *,
        model: str,
        since: datetime,
        until: datetime | None = None,
        keep: Callable[[dict[str, Any]], bool] | None = None,
        caller: CallerKey | None = None,
    ) -> History:
        """Return the provider's own list of the tasks of `model` that it made from `since` to `until`.

        It is read to its end, however long it is, at the pace that the provider allows. `keep` says of each task
        whether it is wanted (None: all are): the others are forgotten at once, so that a long list needs little memory.
        There may be tasks of other models and times too.
        """
        ...

    async def find(
        self, reference: str, *, model: str, task_type: str, attempt: int | None, caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Ask for the task that was created with this `NewTask.reference`. Called only if `capabilities.finds`."""
        ...

    async def check_account(self) -> AccountCheck:
        """Make one call that costs nothing; return what it shows of the connection, the key and the account."""
        ...

    def key_refusal(self) -> str | None:
        """Return why the provider refused Ringback's own key at the last call; None if it did not."""
        ...

    def paused_for(self) -> float:
        """Return the seconds until the end of the pause that the provider asked for; 0 if there is none."""
        ...

    async def check_signature(self, body: bytes, headers: Headers) -> Signature:
        """Check the provider's own signature of an inbound webhook with this body, as it came."""
        ...

    def parse_webhook(self, body: bytes, *, attempt: int | None = None, hidden: str = "") -> WebhookOutcome:
        """Turn an inbound webhook's body into what it comes to. Raises `MalformedUpdate`.

        `hidden` is the secret that came with it, which is redacted (`receiver.domain.redaction`).
        """
        ...

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        """Turn one item of `history` into an update (source `poll`). Raises `MalformedUpdate`."""
        ...

    def redact(self, body: bytes, *, hidden: str = "") -> str:
        """Return an inbound body as text without the secrets that it echoes. Never raises, whatever the body is.

        `hidden` is the secret that came with it.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class ForwardingProvider(Provider, Protocol):
    """A provider that also answers what makes no task, which is passed on to it as it comes."""

    async def account_info(self) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and body of the provider's response about Ringback's account, to be passed on."""
        ...

    async def forward(self, request: ForwardedRequest, *, caller: CallerKey | None = None) -> ForwardOutcome:
        """Pass a request on, with Ringback's own key; return the answer when its headers have arrived.

        The request is sent once at most.
        """
        ...

    def task_in_answer(self, body: bytes) -> ProviderUpdate | None:
        """Return the task (source `poll`) that the body of a forwarded answer is, None if it is none. Never raises."""
        ...
