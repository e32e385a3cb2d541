"""The sandbox's control paths (statistics, options, forced status changes) and the files that outputs link to."""

import dataclasses
from collections import Counter
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import as_json, not_found, refusal
from receiver.sandbox.envelope import raw_task
from receiver.sandbox.script import KnobRefused, ScriptedError, fault_of
from receiver.sandbox.tasks import Sandbox

_GET_TASK = "GET /api/v1/task/{task_id}"


class AdvanceRequest(BaseModel):
    """The body of `POST /sandbox/tasks/{task_id}/advance`. The task's script is the default for what is left out."""

    model_config = ConfigDict(extra="forbid")

    status: str
    output: dict[str, Any] | None = None
    error: ScriptedError | None = None

    @property
    def result(self) -> dict[str, Any]:
        """The `output` and `error` that the request contains, null included."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"status"}}


class ControlPaths:
    """The endpoints of the control paths. `requests` counts the requests by route; the caller updates it."""

    def __init__(self, sandbox: Sandbox, requests: Counter[str]) -> None:
        self._sandbox = sandbox
        self._requests = requests

    async def stats(self, request: Request) -> Response:
        """`GET /sandbox/stats`."""
        sender = self._sandbox.sender
        return as_json(
            {
                "created": len(self._sandbox.tasks),
                "by_endpoint": self._sandbox.created_by_endpoint,
                "notices": {**sender.counts, "in_flight": sender.in_flight},
                "polls": self._requests[_GET_TASK],
                "requests": self._requests,
            }
        )

    async def tasks(self, request: Request) -> Response:
        """`GET /sandbox/tasks`: all tasks, oldest first."""
        return as_json({"tasks": [raw_task(task) for task in self._sandbox.tasks.values()]})

    async def advance(self, request: Request) -> Response:
        """`POST /sandbox/tasks/{task_id}/advance`: `{"status", "output"?, "error"?}`."""
        task = self._sandbox.tasks.get(request.path_params["task_id"])
        if task is None:
            return not_found()
        try:
            wanted = AdvanceRequest.model_validate_json(await request.body())
        except ValidationError as error:
            return refusal(400, fault_of(error))
        self._sandbox.advance(task, wanted.status, **wanted.result)
        return as_json(raw_task(task))

    async def options(self, request: Request) -> Response:
        """`POST /sandbox/options`: patch the options; the response has all current options except the key."""
        try:
            self._sandbox.set_options(orjson.loads(await request.body()))
        except (KnobRefused, orjson.JSONDecodeError) as error:
            return refusal(400, str(error))
        options = dataclasses.asdict(self._sandbox.options)
        del options["api_key"]
        return as_json(options)

    async def file(self, request: Request) -> Response:
        """`GET /files/{name}`: an uploaded file, else a sample of the name's media type."""
        content, media_type = self._sandbox.files.get(request.path_params["name"])
        return Response(content, media_type=media_type)
