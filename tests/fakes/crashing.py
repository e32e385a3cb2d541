"""`ringback serve` that kills itself with SIGKILL at a named point: `python -m tests.fakes.crashing POINT serve …`.

The service has no such switches of its own: the point is put in from outside, before it starts.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from receiver.cli import main
from receiver.inbound import receive
from receiver.outbound.replays import Replays
from receiver.outbound.sender import Sender
from receiver.storage.replays import send_events
from receiver.storage.sqlite import SQLiteConnection
from receiver.tracking.submit import Submitter


def die(*_: Any, **__: Any) -> Any:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def after_the_providers_answer() -> None:
    """The provider made the task; its answer is not on disk."""
    patch.object(Submitter, "_write_surely", die).start()


def after_the_commit_before_the_200() -> None:
    """An inbound webhook is on disk; the provider has not heard of it."""
    answer = receive._answer

    async def answer_or_die(send: Any, status: int, *rest: Any) -> None:
        if status == 200:
            die()
        await answer(send, status, *rest)

    patch.object(receive, "_answer", answer_or_die).start()


def before_the_commit_of_a_webhook() -> None:
    """An inbound webhook was read and nothing of it is on disk."""
    apply = receive.Hooks._apply

    async def apply_or_die(self: Any, *arguments: Any) -> None:
        patch.object(SQLiteConnection, "commit", die).start()
        await apply(self, *arguments)

    patch.object(receive.Hooks, "_apply", apply_or_die).start()


def after_sending_before_settling() -> None:
    """A subscriber was told; that is not on disk."""
    send = Sender.send

    async def send_and_die(self: Any, *arguments: Any) -> Any:
        await send(self, *arguments)
        die()

    patch.object(Sender, "send", send_and_die).start()


def between_two_batches_of_a_replay() -> None:
    """The first batch is on disk."""
    advance = Replays.advance

    async def advance_and_die(self: Any, *arguments: Any) -> Any:
        await advance(self, *arguments)
        die()

    patch.object(Replays, "advance", advance_and_die).start()


def before_the_commit_of_a_batch_of_a_replay() -> None:
    """The rows of a batch are written, and not on disk."""
    send = send_events

    async def send_and_die(*arguments: Any) -> Any:
        await send(*arguments)
        die()

    patch("receiver.outbound.replays.send_events", send_and_die).start()


POINTS: dict[str, Callable[[], None]] = {
    point.__name__: point
    for point in (
        after_the_providers_answer,
        before_the_commit_of_a_webhook,
        after_the_commit_before_the_200,
        after_sending_before_settling,
        between_two_batches_of_a_replay,
        before_the_commit_of_a_batch_of_a_replay,
    )
}

if __name__ == "__main__":
    POINTS[sys.argv.pop(1)]()
    main()
