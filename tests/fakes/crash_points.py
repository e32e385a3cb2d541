"""Named points at which `ringback serve` kills itself with SIGKILL.

The service has no such switches itself: a test patches the point into the process before the service starts.
"""

import os
import signal
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from models import STEP_TERMINAL
from receiver.api import idempotency
from receiver.domain.advance import STEP_OF
from receiver.inbound import receive
from receiver.inbound.answers import answer
from receiver.outbound import replays
from receiver.outbound.sender import Sender
from receiver.runs.advance import Advancer
from receiver.runs.service import Runs
from receiver.storage.postgresql import PostgreSQLConnection
from receiver.storage.sqlite import SQLiteConnection
from receiver.tracking import search, submit
from receiver.tracking.bulk_actions import BATCH, BulkActions
from receiver.tracking.submit import Submitter
from tests.fakes.short_leases import shorten_leases


def die(*_: Any, **__: Any) -> Any:
    """End this process without any clean-up, as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after(owner: Any, name: str) -> None:
    """Patch an async function of a class or module so that the process dies when it has returned."""
    function = getattr(owner, name)

    async def call_and_die(*arguments: Any, **options: Any) -> None:
        await function(*arguments, **options)
        die()

    patch.object(owner, name, call_and_die).start()


def _die_at_first_commit_in(owner: Any, name: str) -> None:
    """Patch an async function of a class so that the process dies at the next commit after it was called."""
    function = getattr(owner, name)

    async def call(*arguments: Any, **options: Any) -> Any:
        patch.object(SQLiteConnection, "commit", die).start()
        patch.object(PostgreSQLConnection, "commit", die).start()
        return await function(*arguments, **options)

    patch.object(owner, name, call).start()


def before_the_call_to_the_provider() -> None:
    """A task is committed as one that is being sent; the provider has not been called."""
    patch.object(Submitter, "send", die).start()


def after_the_providers_answer() -> None:
    """The provider has created the task; its response is not committed."""
    patch.object(Submitter, "_write_until_stored", die).start()


def after_the_commit_before_the_200() -> None:
    """An inbound webhook is committed; the provider has not received the 200."""

    async def answer_or_die(send: Any, status: int, *rest: Any) -> None:
        if status == 200:
            die()
        await answer(send, status, *rest)

    patch.object(receive, "answer", answer_or_die).start()


def before_the_commit_of_a_webhook() -> None:
    """An inbound webhook has been read; nothing of it is committed."""
    _die_at_first_commit_in(receive.InboundEndpoint, "_apply")


def after_sending_before_settling() -> None:
    """A subscriber has received a delivery; the outcome is not committed."""
    _die_after(Sender, "send")


def between_two_batches_of_a_replay() -> None:
    """The first batch is committed, the second is not begun."""
    _die_after(replays.Replays, "advance")


def before_the_commit_of_a_batch_of_a_replay() -> None:
    """The rows of a batch are written but not committed."""
    _die_after(replays, "send_events")


def between_two_batches_of_a_bulk_action() -> None:
    """The outcome of the first batch is committed, the second is not begun."""
    _die_after(BulkActions, "advance")


def in_the_middle_of_a_batch_of_a_bulk_action() -> None:
    """Half of the first batch's tasks were acted on; nothing of it is in the bulk action's row but its plan."""
    act, left = BulkActions._act, BATCH // 2

    async def act_or_die(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        result = await act(*arguments, **options)
        left -= 1
        if not left:
            die()
        return result

    patch.object(BulkActions, "_act", act_or_die).start()


def before_the_work_of_a_key() -> None:
    """A request has claimed its idempotency key and done nothing else. The key's lease is short, so a retry is too."""
    patch.object(idempotency, "LEASE_SECONDS", 1.0).start()
    patch.object(idempotency.Idempotency, "_do", die).start()


def after_the_work_before_its_answer_is_stored() -> None:
    """A request with an idempotency key has done its work; its response is neither stored nor sent.

    The key's lease is short, so that a retry does not wait long for it.
    """
    patch.object(idempotency, "LEASE_SECONDS", 1.0).start()
    patch.object(idempotency.Idempotency, "_save", die).start()


def before_the_commit_of_a_stored_answer() -> None:
    """The response for an idempotency key is written but not committed."""
    patch.object(idempotency, "LEASE_SECONDS", 1.0).start()
    _die_at_first_commit_in(idempotency.Idempotency, "_save")


def before_the_commit_of_a_run() -> None:
    """A run and the tasks of its first steps are written but not committed."""
    _die_after(Runs, "_create")


def after_the_commit_of_a_run() -> None:
    """A run is committed; its creator has received no response."""
    _die_after(Runs, "create")


def before_the_commit_of_a_step_s_end() -> None:
    """A step's end, and what follows from it for its run, are written but not committed."""
    _at_a_step_s_end(lambda _tx: die())


def after_the_commit_of_a_step_s_end() -> None:
    """A step's end, and what follows from it for its run, are committed; no worker has been woken."""
    _at_a_step_s_end(lambda tx: tx.after_commit.insert(0, die))


def _at_a_step_s_end(then: Callable[[Any], None]) -> None:
    apply = Advancer.apply_tasks

    async def apply_and_then(self: Any, tx: Any, changed: Any, *rest: Any) -> Any:
        events = await apply(self, tx, changed, *rest)
        if any(STEP_OF[task.status] in STEP_TERMINAL for task in changed):
            then(tx)
        return events

    patch.object(Advancer, "apply_tasks", apply_and_then).start()


def search_at_once() -> None:
    """No crash: a task whose create call got no answer is searched for at once, not after 5 s."""
    for module in (submit, search):
        patch.object(module, "FIRST_SEARCH_SECONDS", 0.05).start()


POINTS: dict[str, Callable[[], None]] = {
    point.__name__: point
    for point in (
        before_the_call_to_the_provider,
        after_the_providers_answer,
        before_the_commit_of_a_webhook,
        after_the_commit_before_the_200,
        after_sending_before_settling,
        between_two_batches_of_a_replay,
        before_the_commit_of_a_batch_of_a_replay,
        between_two_batches_of_a_bulk_action,
        in_the_middle_of_a_batch_of_a_bulk_action,
        before_the_work_of_a_key,
        after_the_work_before_its_answer_is_stored,
        before_the_commit_of_a_stored_answer,
        before_the_commit_of_a_run,
        after_the_commit_of_a_run,
        before_the_commit_of_a_step_s_end,
        after_the_commit_of_a_step_s_end,
        search_at_once,
        shorten_leases,  # not a crash: it only changes how long the process waits
    )
}
