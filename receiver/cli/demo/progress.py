"""The numbers of the running demo, and how they are shown."""

import sys
import time
from collections import Counter
from typing import Any

from msgspec import Struct, field
from rich.console import Console

from receiver.cli.demo.subscriber_log import SubscriberLog
from receiver.cli.show import ENDS

_LINE_SECONDS = 1.0


class DemoProgress(Struct):
    """What happened until now: at the service (`by_status`), the provider (`sandbox`) and the subscriber."""

    tasks: int
    """How many tasks the demo creates."""
    callbacks: int
    """How many of them have a callback of their own."""
    subscriber: SubscriberLog
    started: float = field(default_factory=time.monotonic)
    by_status: Counter[str] = field(default_factory=Counter)
    sandbox: dict[str, Any] = field(default_factory=lambda: {"notices": {}, "polls": 0})
    """The provider's statistics."""

    @property
    def seconds(self) -> float:
        """How long the demo has been running."""
        return time.monotonic() - self.started

    @property
    def ended(self) -> int:
        """How many tasks have ended."""
        return sum(self.by_status[status] for status in ENDS)

    @property
    def webhooks(self) -> Counter[str]:
        """The provider's webhooks, as the sandbox counts them: `sent`, `lost`, `given_up`, `in_flight`."""
        return Counter(self.sandbox["notices"])

    @property
    def done(self) -> bool:
        """Whether every task has ended, the subscriber knows all ends, and no webhook of the provider is in flight."""
        return (
            self.ended >= self.tasks
            and len({event.task_id for event in self.subscriber.events.values() if event.accepted}) >= self.tasks
            and self.subscriber.counts["callback_ends"] >= self.callbacks
            and not self.webhooks["in_flight"]
        )

    def __str__(self) -> str:
        webhooks, received = self.webhooks, self.subscriber.counts
        return (
            f"{self.ended} of {self.tasks} tasks ended; "
            f"provider: {webhooks['sent']} webhooks sent, {webhooks['lost']} lost, {self.sandbox['polls']} polls; "
            f"subscriber: {received['received']} notifications, {received['refused']} refused"
        )


class Display:
    """Prints messages as lines. The numbers are below them on a terminal, otherwise a line per second.

    With `as_json` nothing is printed.
    """

    def __init__(self, as_json: bool) -> None:
        self._silent = as_json
        self._console = Console()
        self._status = self._console.status("") if sys.stdout.isatty() and not as_json else None
        self._shown = ""
        self._next_line = 0.0

    def __enter__(self) -> "Display":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def announce(self, progress: DemoProgress, message: str) -> None:
        """Print what the demo does next."""
        if not self._silent:
            self._console.print(f"{progress.seconds:5.1f} s  {message}", soft_wrap=True, highlight=False)

    def show(self, progress: DemoProgress) -> None:
        """Show the numbers."""
        shown = str(progress)
        if self._status is not None:
            self._status.update(shown)
        elif shown != self._shown and time.monotonic() >= self._next_line:
            self._shown, self._next_line = shown, time.monotonic() + _LINE_SECONDS
            self.announce(progress, shown)
