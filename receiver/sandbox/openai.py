"""OpenAI's twin: background responses, batches, and the thin webhooks of an account, by Standard Webhooks."""

import time
import uuid
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import as_json
from receiver.sandbox.signatures import key_of, new_secret, signed_by_secret, standard_headers
from receiver.sandbox.task import CreateRequest, SandboxTask
from receiver.sandbox.tasks import Sandbox
from receiver.sandbox.twin import Endpoint, TwinTasks, has_key, json_object

_RESPONSE_WORDS = {"staged": "queued", "pending": "queued", "processing": "in_progress"}
_BATCH_WORDS = {"staged": "validating", "pending": "validating", "processing": "in_progress"}
_PREFIXES = {"response": "resp_", "batch": "batch_"}
_PAGE = 3
"""Few on a page, so that a list has several."""


class OpenAITwin:
    """OpenAI's responses and batches below `/openai`. `POST /v1/webhook_endpoints` names where webhooks are sent."""

    name = "openai"

    def __init__(self, sandbox: Sandbox) -> None:
        self._tasks = TwinTasks(sandbox, self.refusal)
        self._endpoint = ""
        self._secrets: list[str] = []

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Return the paths of responses, batches, models and webhook endpoints."""
        return [
            ("POST", "/v1/responses", self._create_response),
            ("GET", "/v1/responses/{task_id}", self._get),
            ("POST", "/v1/responses/{task_id}/cancel", self._cancel),
            ("POST", "/v1/batches", self._create_batch),
            ("GET", "/v1/batches", self._list_batches),
            ("GET", "/v1/batches/{task_id}", self._get),
            ("POST", "/v1/batches/{task_id}/cancel", self._cancel),
            ("GET", "/v1/models", self._models),
            ("POST", "/v1/webhook_endpoints", self._add_endpoint),
            ("POST", "/v1/webhook_endpoints/{endpoint_id}/rotate_secret", self._rotate),
        ]

    def authorizes(self, request: Request) -> bool:
        """Return whether a request has a key."""
        return has_key(request)

    def refusal(self, status: int, message: str, *, retry_after: int | None = None) -> Response:
        """Return an error in OpenAI's form: without money it is a 429, and a wrong field a 400."""
        code = {401: "invalid_api_key", 402: "insufficient_quota", 429: "rate_limit_exceeded"}.get(status)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
        return as_json(body, {402: 429, 422: 400}.get(status, status), retry_after=retry_after)

    def tells(self, task: SandboxTask) -> bool:
        """Return whether the task has ended: nothing else is told."""
        return task.terminal

    def webhook(self, task: SandboxTask) -> bytes:
        """Return the thin body of the webhook of a task's end."""
        kind = task.request.task_type
        word = _ended(task) if task.terminal else "completed"
        event = {"object": "event", "id": f"evt_{uuid.uuid4().hex}", "type": f"{kind}.{word}"}
        return orjson.dumps({**event, "created_at": int(time.time()), "data": {"id": _id(task)}})

    def signed(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers with the signature of a body, by each secret that is good now; or a wrong one."""
        keys = [key_of(secret) for secret in ([new_secret()] if forged else self._secrets)]
        return standard_headers(body, lambda content: [signed_by_secret(key, content) for key in keys])

    async def _create_response(self, request: Request) -> Response:
        given = await json_object(request)
        if given.get("background") is not True or not given.get("model"):
            return self.refusal(422, "Missing required parameter: 'background'.")
        return await self._create(request, given, "response", str(given["model"]))

    async def _create_batch(self, request: Request) -> Response:
        given = await json_object(request)
        if missing := {"input_file_id", "endpoint", "completion_window"} - given.keys():
            return self.refusal(422, f"Missing required parameter: '{min(missing)}'.")
        return await self._create(request, given, "batch", str(given["endpoint"]))

    async def _create(self, request: Request, given: dict[str, Any], kind: str, model: str) -> Response:
        # The endpoint is the same for all tasks of the account, so it does not tell which creates are the same work.
        work = {name: value for name, value in given.items() if name != "metadata"}
        asked = given.get("sandbox", {})
        script = {"key": orjson.dumps(work).decode(), **asked} if isinstance(asked, dict) else asked
        webhook = {"webhook_config": {"endpoint": self._endpoint}}
        body = {"model": model, "task_type": kind, "input": {**given, "sandbox": script}, "config": webhook}
        wanted = CreateRequest.model_validate(body)
        return await self._tasks.create(request, wanted, lambda task: as_json(_shown(task)), self)

    async def _get(self, request: Request) -> Response:
        return await self._tasks.look(request, self._found(request), lambda task: as_json(_shown(task)))

    async def _list_batches(self, request: Request) -> Response:
        batches = [task for task in self._tasks.newest_first(self) if task.request.task_type == "batch"]
        after = request.query_params.get("after")
        names = [_id(task) for task in batches]
        start = names.index(after) + 1 if after in names else 0
        page = batches[start : start + _PAGE]
        has_more = start + _PAGE < len(batches)
        return as_json({"object": "list", "data": [_shown(task) for task in page], "has_more": has_more})

    async def _cancel(self, request: Request) -> Response:
        task = self._found(request)
        if task is None:
            return self.refusal(404, f"Response with id '{request.path_params['task_id']}' not found.")
        if task.terminal:
            return self.refusal(400, "Cannot cancel a completed response.")
        was_cancelled = self._tasks.cancel(task, also_running=True)
        shown = _shown(task)
        if task.request.task_type == "batch" and was_cancelled:
            shown["status"] = "cancelling"
        return as_json(shown)

    async def _models(self, request: Request) -> Response:
        return as_json({"object": "list", "data": []})

    async def _add_endpoint(self, request: Request) -> Response:
        """Name where the webhooks of all tasks are sent; there is one at most here."""
        self._endpoint = str((await json_object(request)).get("url", ""))
        self._secrets = [new_secret()]
        return as_json({"id": "we_sandbox", "url": self._endpoint, "secret": self._secrets[0]})

    async def _rotate(self, request: Request) -> Response:
        """Make another secret; the earlier one is good besides if the request asks for that."""
        keeps = (await json_object(request)).get("keep_old_secret_active_for_24_hours") is True
        self._secrets = [new_secret(), *(self._secrets[:1] if keeps else [])]
        return as_json({"id": "we_sandbox", "url": self._endpoint, "secret": self._secrets[0]})

    def _found(self, request: Request) -> SandboxTask | None:
        name = request.path_params["task_id"]
        task = self._tasks.find(name.partition("_")[2], self)
        return task if task is not None and _id(task) == name else None


def _id(task: SandboxTask) -> str:
    return f"{_PREFIXES[task.request.task_type]}{task.id}"


def _ended(task: SandboxTask) -> str:
    return "failed" if task.error is not None else task.status


def _shown(task: SandboxTask) -> dict[str, Any]:
    return _batch(task) if task.request.task_type == "batch" else _response(task)


def _response(task: SandboxTask) -> dict[str, Any]:
    word = _ended(task) if task.terminal else _RESPONSE_WORDS.get(task.status, task.status)
    text = {"type": "output_text", "text": " ".join(map(str, (task.output or {}).values())), "annotations": []}
    message = {"type": "message", "status": "completed", "role": "assistant", "content": [text]}
    failure = {"code": "server_error", "message": task.error.message} if task.error is not None else None
    return {
        "id": _id(task),
        "object": "response",
        "created_at": task.created_ns // 1_000_000_000,
        "completed_at": None if task.ended_ns is None else task.ended_ns // 1_000_000_000,
        "status": word,
        "background": True,
        "model": task.request.model,
        "output": [message] if word == "completed" else [],
        "error": failure,
        "incomplete_details": None,
        "metadata": task.request.input.get("metadata", {}),
    }


def _batch(task: SandboxTask) -> dict[str, Any]:
    word = _ended(task) if task.terminal else _BATCH_WORDS.get(task.status, task.status)
    error = {"code": "invalid_json_line", "line": 1, "message": task.error.message if task.error else "", "param": None}
    is_done = word == "completed"
    return {
        "id": _id(task),
        "object": "batch",
        "endpoint": task.request.model,
        "status": word,
        "errors": {"object": "list", "data": [error]} if word == "failed" else None,
        "input_file_id": task.request.input["input_file_id"],
        "output_file_id": f"file-{task.id}" if is_done else None,
        "error_file_id": None,
        "created_at": task.created_ns // 1_000_000_000,
        "request_counts": {"total": int(is_done), "completed": int(is_done), "failed": 0},
        "metadata": task.request.input.get("metadata"),
    }
