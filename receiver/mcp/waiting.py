"""Waiting for a task or a run to end, with progress notifications, through a restart of the service."""

from time import monotonic
from typing import Any

from msgspec import Struct

from receiver.mcp.calls import ApiCalls, ApiData, ToolFailure
from receiver.mcp.tool import ReportProgress

MOST_SECONDS = 600
_STEP_SECONDS = 10
"""Of one long poll. After each there is a notification, so that neither client nor proxy gives the call up."""
ENDS = frozenset({"completed", "failed", "cancelled"})


class WaitResult(Struct, frozen=True):
    """What was found when the wait was over; `has_ended` is False if its time was."""

    found: ApiData
    has_ended: bool
    seconds: float


async def wait_at(calls: ApiCalls, path: str, seconds: int, progress: ReportProgress) -> WaitResult:
    """Wait until what is at a path has ended, or for this number of seconds. Raises `ToolFailure`."""
    began = monotonic()

    async def paused(reason: str) -> None:
        await progress(monotonic() - began, seconds, f"{reason}; trying again")

    found = await calls.get(path)
    while True:
        state = found.data
        waited = monotonic() - began
        left = seconds - waited
        if has_ended(state) or left <= 0:
            return WaitResult(found, has_ended(state), round(waited, 1))
        if calls.api.is_ending:
            raise ToolFailure(f"the service stops; its status was {state['status']}: call again in some seconds")
        await progress(waited, seconds, _words(state))
        query = (("wait_for_completion", "true"), ("timeout_seconds", str(max(1, min(_STEP_SECONDS, round(left))))))
        found = await calls.get(path, query, patience=left, paused=paused)


def has_ended(state: Any) -> bool:
    """Return whether a task or a run is in a terminal state."""
    return state.get("status") in ENDS


def _words(state: Any) -> str:
    """Return in words how far a task or a run is."""
    if isinstance(steps := state.get("steps"), list):
        done = sum(step.get("status") == "completed" for step in steps)
        return f"{state['status']}: {done} of {len(steps)} steps completed"
    percent = f" {state['progress']} %" if state.get("progress") else ""
    return f"{state['status']}{percent}, attempt {state.get('attempt')} of {state.get('max_attempts')}"
