"""A create call, and the task that it makes."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, ValidationError, field_validator

from receiver.sandbox.script import Outcome, Script, ScriptedError, Shape, fault_of

TERMINAL = frozenset({"completed", "success", "failed", "cancelled", "canceled"})
CANCELLABLE = frozenset({"pending", "staged"})


class RequestRefused(ValueError):
    """A create call that says too little or something else than it should. The message names the field."""


class WebhookConfig(BaseModel):
    """Where the client wants to be told."""

    endpoint: str = ""
    secret: str = ""

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_nothing(cls, value: object) -> object:
        return "" if value is None else value


class Config(BaseModel):
    """The part of a create call that every model shares."""

    service_mode: str | None = None
    webhook_config: WebhookConfig | None = None


class CreateRequest(BaseModel):
    """The body of a create call."""

    model: Annotated[str, Field(min_length=1)]
    task_type: Annotated[str, Field(min_length=1)]
    input: dict[str, Any]
    config: Config | None = None

    @property
    def webhook(self) -> WebhookConfig:
        """The webhook, with empty fields if there is none."""
        return (self.config and self.config.webhook_config) or WebhookConfig()


def read_create(body: bytes) -> CreateRequest:
    """Return the create call that the body holds; raises `RequestRefused`."""
    try:
        return CreateRequest.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise RequestRefused(f"invalid request body: {error}") from None
    except ValidationError as error:
        raise RequestRefused(f"invalid request body: {fault_of(error)}") from None


@dataclass
class SandboxTask:
    """A task and its state. Only `Sandbox` writes to it."""

    id: str
    request: CreateRequest
    script: Script
    shape: Shape
    outcome: Outcome
    chance: random.Random
    """Its own, drawn at its creation: so what befalls it does not depend on who else is under way."""
    status: str = "pending"
    created_ns: int = field(default_factory=time.time_ns)
    started_ns: int | None = None
    ended_ns: int | None = None
    output: dict[str, Any] | None = None
    error: ScriptedError | None = None
    logs: list[str] = field(default_factory=list)
    polls: int = 0
    admitted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is no longer staged."""

    @property
    def terminal(self) -> bool:
        """Whether it is over."""
        return self.status.casefold() in TERMINAL
