"""What the paths for supervisors and monitoring answer (`receiver.api.health`)."""

from typing import Literal

from receiver.api.description.forms import Answered


class Alive(Answered):
    """The process handles requests."""

    status: Literal["ok"]


class ReadyAnswer(Answered):
    """The service can do its work."""

    status: Literal["ready"]


class NotReady(Answered):
    """The service cannot do its work at present."""

    status: Literal["not ready"]
    reason: str


class RefusedMetrics(Answered):
    """The metrics' token is missing or wrong."""

    status: Literal["refused"]
    reason: str
