"""What a provider can do, as data: what the service does for its tasks follows from it."""

from enum import StrEnum

from msgspec import Struct


class CallbackScope(StrEnum):
    """For what a provider is given an address for its webhooks."""

    TASK = "task"
    """With each create call."""
    ACCOUNT = "account"
    """Once, by a person, for all tasks of an account."""
    NONE = "none"


class CancelScope(StrEnum):
    """Which tasks a provider cancels."""

    ANY = "any"
    QUEUED = "queued"
    """Only those that it has not begun."""
    NONE = "none"


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a provider can do, as data.

    `proofs` names what its webhooks bring as proof besides the token in their path, such as `standard webhooks`; none
    if they bring nothing. `sends_secret` says whether they send back a secret in a header, so that their path needs no
    token. `is_thin` says whether they only tell that there is news, so that each task is asked for. `lists` says
    whether it has a list of its tasks, which `history` reads to the end; `finds` whether it can be asked for a task by
    a reference of ours, which `find` does, be it for tasks of some types alone. `output_seconds` and `record_seconds`
    say how long outputs and tasks are kept there, `least_poll_seconds` how far apart looks at one task must be at
    least; None where that is not known. `erases_ended` says that the call which cancels a task would erase one that has
    ended, so that it is looked at first. `outputs_need_key` says whether an output is fetched with the account's key.
    """

    callback: CallbackScope
    proofs: tuple[str, ...] = ()
    sends_secret: bool = False
    is_thin: bool = False
    cancels: CancelScope = CancelScope.NONE
    erases_ended: bool = False
    lists: bool = False
    finds: bool = False
    output_seconds: float | None = None
    record_seconds: float | None = None
    least_poll_seconds: float | None = None
    outputs_need_key: bool = False
