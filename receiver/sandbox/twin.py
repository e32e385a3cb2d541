"""A twin of another provider: its paths, its webhooks and its signatures, over the same tasks and scripts as PiAPI's.

A twin is below a path of its own, `/{name}`, which is the base URL of an account that uses it. What a task does is set
by `sandbox` in its input, as for PiAPI.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import hang, nonsense, unless_broken
from receiver.sandbox.script import KnobRefused, PollBehaviour, SubmitBehaviour, poll_behaviour, read_script
from receiver.sandbox.task import CreateRequest, SandboxTask
from receiver.sandbox.tasks import Sandbox

Endpoint = Callable[[Request], Awaitable[Response]]
Refuse = Callable[..., Response]
"""Makes an error of the provider's, from a status, a message and `retry_after`."""

_REFUSALS: dict[SubmitBehaviour, tuple[int, str]] = {
    "refuse": (422, "the prompt was refused"),
    "refuse_in_200": (402, "insufficient credit"),
    "unauthorized": (401, "the key is wrong"),
    "rate_limited": (429, "too many requests"),
    "unavailable": (503, "service unavailable"),
    "error": (500, "internal error"),
}
_POLL_FAULTS: dict[PollBehaviour, tuple[int, str]] = {
    "not_found": (404, "not found"),
    "error": (500, "internal error"),
    "rate_limited": (429, "too many requests"),
}


class Twin(Protocol):
    """A provider's twin. `routes` are below `/{name}`."""

    name: str

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Return the paths, each with its method and what answers it."""
        ...

    def authorizes(self, request: Request) -> bool:
        """Return whether a request has a key in the provider's own form."""
        ...

    def refusal(self, status: int, message: str, *, retry_after: int | None = None) -> Response:
        """Return an error in the provider's own form."""
        ...


class TwinTasks:
    """What every twin does with the sandbox's tasks. `refuse` makes the provider's own errors."""

    def __init__(self, sandbox: Sandbox, refuse: Refuse) -> None:
        self._sandbox = sandbox
        self._refuse = refuse

    async def create(
        self,
        request: Request,
        wanted: CreateRequest,
        answer: Callable[[SandboxTask], Response],
        twin: Any,
        *,
        endpoint: str | None = None,
    ) -> Response:
        """Make a task as its script asks, and answer it; or fail as the script asks.

        `endpoint` is where webhooks go if the request does not say that.
        """
        options = self._sandbox.options
        if options.submit_status is not None:
            return self._refuse(options.submit_status, "outage", retry_after=options.retry_after)
        try:
            script = read_script(wanted.input.get("sandbox", {}), options)
        except KnobRefused as error:
            return self._refuse(422, str(error))
        behaviour = self._sandbox.submit_behaviour(wanted, script)
        if behaviour in _REFUSALS:
            status, message = _REFUSALS[behaviour]
            return self._refuse(status, message, retry_after=script.retry_after if status == 429 else None)
        if behaviour == "nonsense":
            return nonsense()
        files_url = self._sandbox.files_url(request)
        task = self._sandbox.create(wanted, script, files_url, twin=twin, endpoint=endpoint)
        answered = answer(task)
        if script.webhook == "before_answer":
            await self._sandbox.wait_until_notified(task)
        return await unless_broken(answered, request, behaviour, script)

    def find(self, task_id: str, twin: Any) -> SandboxTask | None:
        """Return a task of this twin's."""
        task = self._sandbox.tasks.get(task_id)
        return task if task is not None and task.twin is twin else None

    async def look(
        self, request: Request, task: SandboxTask | None, answer: Callable[[SandboxTask], Response]
    ) -> Response:
        """Count a look at a task; answer it, or with the fault that its script asks for, or that there is no task."""
        options = self._sandbox.options
        if options.poll_status is not None:
            return self._refuse(options.poll_status, "outage", retry_after=options.retry_after)
        if task is None:
            return self._refuse(404, "not found")
        behaviour = poll_behaviour(task.script, task.polls)
        task.polls += 1
        if behaviour in _POLL_FAULTS:
            status, message = _POLL_FAULTS[behaviour]
            return self._refuse(status, message, retry_after=task.script.retry_after if status == 429 else None)
        if behaviour == "nonsense":
            return nonsense()
        if behaviour == "hang":
            await hang(request, task.script.hang_seconds)
        return answer(task)

    def cancel(self, task: SandboxTask, *, also_running: bool = False) -> bool:
        """Cancel a task that has not begun, or one that has not ended; return whether it was."""
        return self._sandbox.cancel(task, also_running=also_running)

    def newest_first(self, twin: Any) -> list[SandboxTask]:
        """Return the twin's tasks."""
        return [task for task in reversed(self._sandbox.tasks.values()) if task.twin is twin]


def has_key(request: Request, scheme: str = "Bearer") -> bool:
    """Return whether a request has a key in its `Authorization`, whatever the key is."""
    given, _, key = request.headers.get("authorization", "").partition(" ")
    return given == scheme and bool(key.strip())


async def json_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request's body, an empty one if it is none."""
    try:
        value = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
