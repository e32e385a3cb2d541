"""The kinds of tasks that the providers make, and how the tests ask for one."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.providers import CallbackScope, Capabilities
from receiver.providers.api import API
from receiver.providers.registry import APIS, known_apis
from tests.fakes.declared import EXAMPLES, cases_of
from tests.fakes.world import World, in_process

ONLY_WEBHOOKS: dict[str, Any] = {"poll_first_seconds": "600"}
ALL_APIS = known_apis(EXAMPLES)


@dataclass(frozen=True)
class Kind:
    """A kind of task of a provider's, and how one is asked for. `can_cancel`: as far as the provider cancels at all."""

    provider: str
    model: str
    task_type: str = "any"
    input: dict[str, Any] = field(default_factory=dict)
    can_cancel: bool = True

    @property
    def api(self) -> API:
        return ALL_APIS[self.provider]

    @property
    def can(self) -> Capabilities:
        return self.api.capabilities

    @property
    def is_told_of(self) -> bool:
        """Whether something tells of a create whose answer was lost."""
        return self.can.callback == CallbackScope.TASK or self.can.lists or self.can.finds

    def world(self, folder: Path, **settings: Any) -> AbstractAsyncContextManager[World]:
        """Return a world with an account at the provider's twin."""
        return in_process(folder, declared=() if self.provider in APIS else (self.provider,), **settings)

    def __str__(self) -> str:
        return (
            self.provider
            if self.task_type == "any" or self.provider not in APIS
            else f"{self.provider}_{self.task_type}"
        )


def declared(name: str) -> Kind:
    """Return the kind of task that the recorded cases of a declared provider show."""
    sample = cases_of(name).sample
    return Kind(name, sample.model, sample.task_type or "any", dict(sample.input))


VIDEO = {"instances": [{"prompt": "a cat"}]}
BATCH_FILE = {"input_file_id": "file-abc123", "endpoint": "/v1/responses", "completion_window": "24h"}
GEMINI_BATCH = {"batch": {"input_config": {"file_name": "files/abc"}}}
CODED = (
    Kind("fal", "fal-ai/flux/dev"),
    Kind("replicate", "stability-ai/sdxl"),
    Kind("openai", "gpt-5-mini", "response", {"input": "a cat"}),
    Kind("gemini", "veo-3.1-generate-preview", "video", VIDEO, can_cancel=False),
    Kind("pi", "campaigns.generate"),
)
FIRST_KINDS = (*CODED, *(declared(name) for name in ("kling", "luma", "minimax", "everything")))
"""Of the declared ones those that differ most: a JWT and a look-up by our reference; poll-only; codes in a 200, a
second call and a challenge; and one of the tests with a list and public keys. The suite has no time for all."""
OTHER_KINDS = (
    Kind("openai", "gpt-5-mini", "batch", BATCH_FILE),
    Kind("gemini", "gemini-3.5-flash", "interaction", {"input": "a cat"}),
    Kind("gemini", "gemini-3.5-flash", "batch", GEMINI_BATCH),
)
REST = tuple(
    declared(name)
    for name in ("ark", "assemblyai", "elevenlabs", "kie", "minimaxh3", "openrouter", "runway", "stability", "sunoapi")
)
"""The other declared ones: that each form is sent and read is shown by a task or two."""
KINDS = FIRST_KINDS + OTHER_KINDS


def each(*kinds: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=str)


async def create(world: World, kind: Kind, sandbox: dict[str, Any] | None = None, **fields: Any) -> httpx.Response:
    body = {"provider": kind.provider, "model": kind.model, "task_type": kind.task_type, **fields}
    return await world.create(
        {} if sandbox is None else sandbox, **({"input": kind.input} if kind.input else {}), **body
    )


async def created(world: World, kind: Kind, sandbox: dict[str, Any] | None = None, **fields: Any) -> str:
    answer = await create(world, kind, sandbox, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


async def at_provider(world: World) -> list[dict[str, Any]]:
    return list((await world.provider.get("/sandbox/tasks")).json()["tasks"])
