"""What becomes of one task's notices: sent, lost, doubled, held back, spoiled."""

import asyncio
import time
from collections.abc import Callable

import orjson

from receiver.sandbox.envelope import task_data
from receiver.sandbox.notices import Notice, NoticeSender, Sending
from receiver.sandbox.script import SandboxOptions
from receiver.sandbox.task import SandboxTask

_TOO_LARGE = 2 * 1024 * 1024
_WRONG_SECRET = "not-the-secret"  # noqa: S105 - wrong on purpose
_NOT_JSON = b"<html><body>upstream says hello</body></html>"
_ONLY_THE_LAST = frozenset({"terminal_only", "before_answer"})


class Outbox:
    """The notices of one task, each a picture of the task as it was when it was announced."""

    def __init__(self, task: SandboxTask, sender: NoticeSender, options: Callable[[], SandboxOptions]) -> None:
        self._task = task
        self._sender = sender
        self._options = options
        self._conduct = task.script.webhook
        by_chance = task.chance.random() < options().reorder_share
        self._reordered = self._conduct == "reordered" or (self._conduct is None and by_chance)
        self._held: list[Notice] = []
        self._sendings: list[Sending] = []

    def announce(self, word: str | None = None) -> None:
        """Tell the client how the task is now; `word` stands in for its status."""
        if not self._task.request.webhook.endpoint:
            return
        if self._conduct in _ONLY_THE_LAST and not self._task.terminal:
            return
        for notice in self._copies(self._notice(word)):
            if self._reordered:
                self._held.append(notice)
            else:
                self._send(notice)

    def release(self) -> None:
        """Send what was held back, the last first."""
        while self._held:
            self._send(self._held.pop())

    async def settled(self) -> None:
        """Wait until every notice so far is acknowledged or given up."""
        under_way = [sending.work for sending in self._sendings if sending.work is not None]
        if under_way:
            await asyncio.wait(under_way)

    def _send(self, notice: Notice) -> None:
        late = self._conduct == "late" and self._task.terminal
        delay = self._task.script.late_seconds if late else 0.0
        previous = self._sendings[-1] if self._sendings else None
        self._sendings.append(self._sender.send(notice, after=previous, delay=delay))

    def _copies(self, notice: Notice) -> list[Notice]:
        # Both are drawn every time, so that one share's value does not change what the other one picks.
        lost = self._task.chance.random() < self._options().lose_share
        twice = self._task.chance.random() < self._options().duplicate_share
        if self._conduct == "lost" or (self._conduct is None and lost):
            self._sender.counts["lost"] += 1
            return []
        return [notice] * (2 if self._conduct == "twice" or (self._conduct is None and twice) else 1)

    def _notice(self, word: str | None) -> Notice:
        webhook = self._task.request.webhook
        secret = _WRONG_SECRET if self._conduct == "wrong_secret" else webhook.secret or None
        return Notice(endpoint=webhook.endpoint, secret=secret, body=self._body(word))

    def _body(self, word: str | None) -> bytes:
        if self._conduct == "not_json":
            return _NOT_JSON
        body = {"timestamp": int(time.time()), "data": task_data(self._task, word)}
        if self._conduct == "too_large":
            body["padding"] = "x" * _TOO_LARGE
        return orjson.dumps(body)
