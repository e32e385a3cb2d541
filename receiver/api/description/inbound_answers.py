"""What providers sent, as it is answered (`receiver.api.receipts`)."""

from typing import Literal

from models import ReceiptReason
from receiver.api.description.forms import Answered, Id, Time


class ReceiptAnswer(Answered):
    """A webhook that was authentic and not applied."""

    object: Literal["receipt"]
    id: Id
    provider: str
    task_id: str | None
    """The id in its URL, which may be of no task, or that of the task which it is about."""
    provider_task_id: str | None
    reason: ReceiptReason
    message: str
    """The reason in words."""
    received_at: Time


class ReceiptWithBodyAnswer(ReceiptAnswer):
    """A receipt with its body."""

    body: str
    """As received, without the secret that the provider echoes."""


class ReceivedAnswer(Answered):
    """How many webhooks of one provider came in, by what became of them."""

    name: str
    stored: int
    thin: int
    """They only said that there is news, or could not be checked: the task was asked for."""
    answered: int
    """They asked for an answer, such as a challenge, and got it."""
    unknown_task: int
    """They only named a task, and it is none of Ringback's."""
    malformed: int
    too_large: int
    unknown_encoding: int
    unavailable: int
    wrong_secret: int


class AppliedAnswer(Answered):
    """What the webhooks that were stored did."""

    applied: int
    unchanged: int
    receipts: int


class InboundAnswer(Answered):
    """How many webhooks came in since the service started."""

    object: Literal["inbound"]
    providers: list[ReceivedAnswer]
    """Empty for an organization that is not the operator's."""
    updates: AppliedAnswer | None
