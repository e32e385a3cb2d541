"""Waiting for tasks, a run, a replay or a bulk action to end, through a restart of the service; and what that means.

Tasks and runs are waited for with long polls, several tasks concurrently. Replays and bulk actions have no long poll:
they are polled.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial

import httpx
from msgspec import Struct

from receiver.cli.console import watched
from receiver.cli.failure import ServiceUnreachable, Status
from receiver.cli.interrupts import run_async
from receiver.cli.progress import OnUpdate, bulk_action_progress, replay_progress, run_progress, task_progress
from receiver.cli.service import OUTAGE_SECONDS, connection, path_segment, reaching, read_answer
from receiver.cli.show import ENDS, ApiObject

_LONG_POLL_SECONDS = 30
_WATCHED_TASK_SECONDS = 3
_WATCHED_RUN_SECONDS = 1
"""Long polls are shorter while a person watches, so that the display shows progress."""
_PAUSE_SECONDS = 1.0
_REPLAY_PAUSE_SECONDS = 0.5
_RESPONSE_SECONDS = 10.0
"""How long the service may take to respond, in addition to the time of the long poll."""
_MOST_CONNECTIONS = 100


def wait_for_tasks(ids: Sequence[str], max_seconds: float | None, *, as_json: bool) -> list[ApiObject]:
    """Wait until all tasks have ended, or for `max_seconds`; return their last known states in the order of `ids`.

    A state is empty if the service returned none.
    """
    with task_progress(ids, as_json) as on_update:
        seconds = _WATCHED_TASK_SECONDS if watched(as_json) else _LONG_POLL_SECONDS
        targets = [
            _Target(f"/api/v1/task/{path_segment(task_id)}", seconds, _PAUSE_SECONDS, partial(on_update, task_id))
            for task_id in ids
        ]
        return run_async(_wait_for_all(targets, max_seconds))


def wait_for_run(run_id: str, max_seconds: float | None, *, as_json: bool) -> ApiObject:
    """Wait until a run has ended, or for `max_seconds`; return its last known state."""
    with run_progress(as_json) as on_update:
        seconds = _WATCHED_RUN_SECONDS if watched(as_json) else _LONG_POLL_SECONDS
        target = _Target(f"/api/v1/runs/{path_segment(run_id)}", seconds, _PAUSE_SECONDS, on_update)
        return run_async(_wait_for_all([target], max_seconds))[0]


def wait_for_replay(webhook_path: str, replay: ApiObject, max_seconds: float | None, *, as_json: bool) -> ApiObject:
    """Wait until no delivery of a replay is pending, or for `max_seconds`; return its last known state."""
    with replay_progress(as_json) as on_update:
        path = f"{webhook_path}/replays/{path_segment(replay['id'])}"
        target = _Target(path, 0, _REPLAY_PAUSE_SECONDS, on_update, has_ended=replay_has_ended)
        return run_async(_wait_for_all([target], max_seconds, known=replay))[0]


def wait_for_bulk_action(action: ApiObject, *, as_json: bool) -> ApiObject:
    """Wait until a bulk action has ended; return its last known state."""
    with bulk_action_progress(as_json) as on_update:
        on_update(action)
        path = f"/api/v1/bulk-actions/{path_segment(action['id'])}"
        target = _Target(path, 0, _REPLAY_PAUSE_SECONDS, on_update, has_ended=bulk_action_has_ended)
        return run_async(_wait_for_all([target], None, known=action))[0]


def bulk_action_has_ended(action: ApiObject) -> bool:
    """Return whether no further task is acted on."""
    return bool(action["status"] != "running")


def has_ended(state: ApiObject) -> bool:
    """Return whether a task or a run is in a terminal state."""
    return state.get("status") in ENDS


def replay_has_ended(replay: ApiObject) -> bool:
    """Return whether no delivery of a replay is pending, and no more will be added."""
    return replay["status"] != "running" and not replay["pending"]


def end_status(states: Sequence[ApiObject]) -> Status:
    """Return the exit status for tasks or runs: timed out unless all have ended, failed unless all completed."""
    if not all(map(has_ended, states)):
        return Status.TIMED_OUT
    return Status.DONE if all(state["status"] == "completed" for state in states) else Status.TASK_FAILED


def replay_end_status(replay: ApiObject) -> Status:
    """Return the exit status for a replay that has ended: failed unless all of it was delivered."""
    failed = replay["status"] == "cancelled" or replay["dead"] or replay["cancelled"]
    return Status.TASK_FAILED if failed else Status.DONE


class _Target(Struct, frozen=True):
    """What to wait for."""

    path: str
    long_poll_seconds: int
    """0 where the API has no long poll."""
    pause_seconds: float
    """The shortest time from one poll to the next. A service that responds at once, as a full one, is not flooded."""
    on_update: OnUpdate
    has_ended: Callable[[ApiObject], bool] = has_ended


async def _wait_for_all(
    targets: Sequence[_Target], max_seconds: float | None, known: ApiObject | None = None
) -> list[ApiObject]:
    async with httpx.AsyncClient(**connection(), limits=httpx.Limits(max_connections=_MOST_CONNECTIONS)) as client:
        waits = [asyncio.ensure_future(_Wait(client, target, known).run(max_seconds)) for target in targets]
        try:
            return await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


class _Wait:
    """Waits for one target. `known` is its state if the service has just returned it."""

    def __init__(self, client: httpx.AsyncClient, target: _Target, known: ApiObject | None) -> None:
        self._client = client
        self._target = target
        self._state = known or {}

    async def run(self, max_seconds: float | None) -> ApiObject:
        """Return the last known state when the target has ended or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = None if max_seconds is None else loop.time() + max_seconds
        if not self._state:
            await self._poll(0)  # without retries: a service that never responded is reported at once
        try:
            async with asyncio.timeout_at(deadline):
                while not self._target.has_ended(self._state):
                    await self._poll_and_pause(deadline)
        except TimeoutError:
            pass
        return self._state

    async def _poll_and_pause(self, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        started_at, longest = loop.time(), self._target.long_poll_seconds
        left = longest if deadline is None else math.ceil(deadline - started_at)
        await self._poll_with_retries(min(longest, max(1, left)))
        if not self._target.has_ended(self._state):
            await asyncio.sleep(max(0.0, started_at + self._target.pause_seconds - loop.time()))

    async def _poll_with_retries(self, seconds: int) -> None:
        """Poll; retry while the service is unreachable, for `OUTAGE_SECONDS` at most."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + OUTAGE_SECONDS
        while True:
            try:
                return await self._poll(seconds)
            except ServiceUnreachable:
                if loop.time() > give_up_at:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _poll(self, seconds: int) -> None:
        """Read the state; with `seconds`, let the service respond when the target has ended or this time is over."""
        params: dict[str, str | int] = {"wait_for_completion": "true", "timeout_seconds": seconds} if seconds else {}
        with reaching(self._client.base_url):
            timeout = httpx.Timeout(seconds + _RESPONSE_SECONDS, pool=None)
            answer = await self._client.get(self._target.path, params=params, timeout=timeout)
        if state := read_answer(answer):
            self._state = state
            self._target.on_update(state)
