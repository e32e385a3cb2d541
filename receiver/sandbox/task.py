"""The body of a create call, and the task that it makes."""

import asyncio
import random
import time
from typing import Annotated, Any, Protocol

import orjson
from msgspec import Struct, field
from pydantic import BaseModel, Field, ValidationError, field_validator

from receiver.sandbox.families import SandboxFamily, Shape, family_of
from receiver.sandbox.script import Outcome, Script, ScriptedError, fault_of

TERMINAL = frozenset({"completed", "success", "failed", "cancelled", "canceled"})
CANCELLABLE = frozenset({"pending", "staged"})


class RequestRefused(ValueError):
    """A create call lacks a field or has an invalid one. The message names the field."""


class ClientWebhook(BaseModel):
    """The client's webhook: where to send notices, and with which secret."""

    endpoint: str = ""
    secret: str = ""

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_nothing(cls, value: object) -> object:
        return "" if value is None else value


class CreateConfig(BaseModel):
    """The `config` of a create call, the same for every model."""

    service_mode: str | None = None
    webhook_config: ClientWebhook | None = None


class CreateRequest(BaseModel):
    """The body of a create call."""

    model: Annotated[str, Field(min_length=1)]
    task_type: Annotated[str, Field(min_length=1)]
    input: dict[str, Any]
    config: CreateConfig | None = None

    @property
    def webhook(self) -> ClientWebhook:
        """The client's webhook, with empty fields if the call has none."""
        return (self.config and self.config.webhook_config) or ClientWebhook()


def read_create(body: bytes) -> CreateRequest:
    """Parse the body of a create call. Raises `RequestRefused`."""
    try:
        return CreateRequest.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise RequestRefused(f"invalid request body: {error}") from None
    except ValidationError as error:
        raise RequestRefused(f"invalid request body: {fault_of(error)}") from None


class TaskTwin(Protocol):
    """What the webhooks of a task need of a provider's twin."""

    def tells(self, task: "SandboxTask") -> bool:
        """Return whether a webhook is sent for the task's present state."""
        ...

    def webhook(self, task: "SandboxTask") -> bytes:
        """Return the body of a webhook that shows the task as it is."""
        ...

    def signed(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers that prove a body, wrong ones if it is to be forged."""
        ...


class SandboxTask(Struct):
    """A task and its state. Only `Sandbox` writes to it."""

    id: str
    request: CreateRequest
    script: Script
    shape: Shape
    outcome: Outcome
    files_url: str
    """The beginning of the URLs in the output."""
    rng: random.Random
    """The task's own random generator, so that its random faults do not depend on other tasks."""
    twin: "TaskTwin | None" = None
    """Whose form its webhooks have; None for PiAPI's."""
    endpoint: str = ""
    """Where its webhooks go: what the create call says, or an address that an account has for all of them."""
    status: str = "pending"
    created_ns: int = field(default_factory=time.time_ns)
    started_ns: int | None = None
    ended_ns: int | None = None
    output: dict[str, Any] | None = None
    error: ScriptedError | None = None
    logs: list[str] = field(default_factory=list)
    polls: int = 0
    admitted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the task is no longer staged."""

    @property
    def family(self) -> SandboxFamily:
        """The family of the task's model."""
        return family_of(self.request.model)

    @property
    def terminal(self) -> bool:
        """Whether the task has ended."""
        return self.status.casefold() in TERMINAL
