"""What an inbound webhook comes to, and what its signature has shown."""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from receiver.domain.updates import ProviderUpdate

Headers = Sequence[tuple[bytes, bytes]]
"""The headers of a request, with names in lower case."""


class Signature(StrEnum):
    """What a provider's own signature of a webhook has shown."""

    VALID = "valid"
    WRONG = "wrong"
    """It is missing, or made with another key, or about another body or time."""
    UNCHECKED = "unchecked"
    """The keys to check it with cannot be had now: what the webhook says is not believed, and asked for instead."""


class LookNow(Struct, frozen=True):
    """A webhook that only says that there is news of a task, which is to be asked for; None if it does not say which.

    `body` is not an update: a thin event, or one whose result is in a second call.
    """

    provider_task_id: str | None = None


class ChallengeAnswer(Struct, frozen=True):
    """What a provider expects as answer to a webhook that is about no task (a challenge)."""

    body: bytes
    content_type: str = "application/json"


WebhookOutcome = ProviderUpdate | LookNow | ChallengeAnswer
