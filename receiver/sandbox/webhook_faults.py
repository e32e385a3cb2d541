"""The faults of one task's webhooks (notices): lost, sent twice, reordered, late or malformed."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from receiver.sandbox.body_forms import WrittenBody, noted, write
from receiver.sandbox.envelope import task_data
from receiver.sandbox.notices import Notice, NoticeSender, Sending
from receiver.sandbox.script import SandboxOptions
from receiver.sandbox.task import SandboxTask

_TOO_LARGE = 2 * 1024 * 1024
_WRONG_SECRET = "not-the-secret"  # noqa: S105 - wrong on purpose
_NOT_JSON = b"<html><body>upstream says hello</body></html>"
_TERMINAL_ONLY = frozenset({"terminal_only", "before_answer"})


class WebhookFaults:
    """Sends the notices of one task, with the faults of its script and options.

    Each notice shows the task as it was when it was announced.
    """

    def __init__(self, task: SandboxTask, sender: NoticeSender, options: Callable[[], SandboxOptions]) -> None:
        self._task = task
        self._sender = sender
        self._options = options
        self._behaviour = task.script.webhook
        at_random = task.rng.random() < options().reorder_share
        self._reordered = self._behaviour == "reordered" or (self._behaviour is None and at_random)
        self._held: list[Notice] = []
        self._sendings: list[Sending] = []

    def announce(self, word: str | None = None) -> None:
        """Notify the client of the task's present state; `word` replaces its status."""
        if not self._task.endpoint:
            return
        if self._behaviour in _TERMINAL_ONLY and not self._task.terminal:
            return
        if self._task.twin is not None and not self._task.twin.tells(self._task):
            return
        for notice in self._copies(self._notice(word)):
            if self._reordered:
                self._held.append(notice)
            else:
                self._send(notice)

    def release(self) -> None:
        """Send the notices that were held for reordering, the latest first."""
        while self._held:
            self._send(self._held.pop())

    async def settled(self) -> None:
        """Wait until every notice sent until now is acknowledged or given up."""
        in_flight = [sending.work for sending in self._sendings if sending.work is not None]
        if in_flight:
            await asyncio.wait(in_flight)

    def _send(self, notice: Notice) -> None:
        late = self._behaviour == "late" and self._task.terminal
        delay = self._task.script.late_seconds if late else 0.0
        previous = self._sendings[-1] if self._sendings else None
        self._sendings.append(self._sender.send(notice, after=previous, delay=delay))

    def _copies(self, notice: Notice) -> list[Notice]:
        # Both numbers are always drawn, so that the value of one share does not change the choices of the other.
        lost = self._task.rng.random() < self._options().lose_share
        twice = self._task.rng.random() < self._options().duplicate_share
        if self._behaviour == "lost" or (self._behaviour is None and lost):
            self._sender.counts["lost"] += 1
            return []
        return [notice] * (2 if self._behaviour == "twice" or (self._behaviour is None and twice) else 1)

    def _notice(self, word: str | None) -> Notice:
        webhook, twin = self._task.request.webhook, self._task.twin
        is_forged = self._behaviour == "wrong_secret"
        if twin is not None:
            body = twin.webhook(self._task)  # once: it may have its time in it
            content = _NOT_JSON if self._behaviour == "not_json" else body
            signed = twin.signed(body, forged=is_forged)
            return Notice(endpoint=self._task.endpoint, secret=None, body=WrittenBody(content, signed))
        secret = _WRONG_SECRET if is_forged else webhook.secret or None
        return Notice(endpoint=self._task.endpoint, secret=secret, body=self._body(word))

    def _body(self, word: str | None) -> WrittenBody:
        if self._behaviour == "not_json":
            return WrittenBody(_NOT_JSON)
        form = self._task.script.body
        body: dict[str, Any] = {"timestamp": int(time.time()), "data": noted(task_data(self._task, word), form)}
        if self._behaviour == "too_large":
            body["padding"] = "x" * _TOO_LARGE
        return write(body, form)
