"""Gemini's twin: videos as long-running operations, interactions, batches, and the webhooks of each of them."""

from datetime import UTC, datetime
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import as_json
from receiver.sandbox.signatures import public_jwks, signed_by_key, standard_headers
from receiver.sandbox.task import CreateRequest, SandboxTask
from receiver.sandbox.tasks import Sandbox
from receiver.sandbox.twin import Endpoint, TwinTasks, json_object

_INTERACTION_WORDS = {"staged": "queued", "pending": "queued", "processing": "in_progress"}
_BATCH_WORDS = {"staged": "PENDING", "pending": "PENDING", "processing": "RUNNING", "completed": "SUCCEEDED"}
_STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
_METHODS = {"predictLongRunning": "video", "batchGenerateContent": "batch"}


class GeminiTwin:
    """Gemini below `/gemini`. Its keys are three, of which one signs, as nothing says which of them it was."""

    name = "gemini"

    def __init__(self, sandbox: Sandbox) -> None:
        self._tasks = TwinTasks(sandbox, self.refusal)
        self._keys = _new_keys()

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Return the paths of what can be begun and asked for, and of the public keys."""
        return [
            ("GET", "/.well-known/jwks.json", self._jwks),
            ("POST", "/rotate-keys", self._rotate),
            ("GET", "/v1beta/models", self._models),
            ("GET", "/v1beta/models/{model}/operations/{task_id}", self._get),
            ("POST", "/v1beta/models/{model}:{method}", self._create),
            ("POST", "/v1beta/interactions", self._create_interaction),
            ("GET", "/v1beta/interactions/{task_id}", self._get),
            ("POST", "/v1beta/interactions/{task_id}/cancel", self._cancel),
            ("GET", "/v1beta/batches/{task_id}", self._get),
            ("POST", "/v1beta/batches/{task_id}:cancel", self._cancel),
        ]

    def authorizes(self, request: Request) -> bool:
        """Return whether a request has a key; the public keys need none."""
        is_open = request.url.path.endswith(("/jwks.json", "/rotate-keys"))
        return is_open or bool(request.headers.get("x-goog-api-key", "").strip())

    def refusal(self, status: int, message: str, *, retry_after: int | None = None) -> Response:
        """Return an error in Google's form: a wrong key is a 400, and so is an account without money."""
        details: list[dict[str, Any]] = []
        word = None
        if status == 401:
            details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"})
        if status == 402:
            word, message = "FAILED_PRECONDITION", "Enable billing on your project to use this model."
        if retry_after is not None:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after}.0s"})
        status = 400 if status in (401, 402, 422) else status
        error = {"code": status, "message": message, "status": word or _STATUSES.get(status, "INTERNAL")}
        return as_json({"error": {**error, "details": details}}, status)

    def tells(self, task: SandboxTask) -> bool:
        """Return whether the task has ended, and in a way for which there is an event: a failed video has none."""
        is_good = task.status == "completed" and task.error is None
        return task.terminal and (is_good or task.request.task_type != "video")

    def webhook(self, task: SandboxTask) -> bytes:
        """Return the thin body of the webhook of a task's end."""
        word = "failed" if task.error is not None else task.status
        if task.request.task_type == "video":
            kind = "video.generated"
        else:
            kind = f"{task.request.task_type}.{word}"
            kind = "batch.succeeded" if kind == "batch.completed" else kind
        moment = datetime.now(UTC).isoformat()
        data = {"id": _name(task)}
        return orjson.dumps({"type": kind, "version": "v1", "timestamp": moment, "data": data})

    def signed(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers with the signature of a body, a wrong one if it is to be forged."""
        key = Ed25519PrivateKey.generate() if forged else self._keys[-1]
        return standard_headers(body, lambda content: [signed_by_key(key, content)])

    async def _create(self, request: Request) -> Response:
        given, path = await json_object(request), request.path_params
        kind = _METHODS.get(path["method"])
        batch = _object(given.get("batch"))
        needed = {"video": given.get("instances"), "batch": batch.get("input_config") or batch.get("inputConfig")}
        if kind is None or not needed[kind]:
            return self.refusal(400, "Request contains an invalid argument.")
        config = (given if kind == "video" else batch).get("webhookConfig")
        return await self._begin(request, given, kind, path["model"], config)

    async def _create_interaction(self, request: Request) -> Response:
        given = await json_object(request)
        if given.get("background") is not True or not given.get("input"):
            return self.refusal(400, "background is required with webhook_config")
        model = str(given.get("model") or given.get("agent"))
        return await self._begin(request, given, "interaction", model, given.get("webhook_config"))

    async def _begin(self, request: Request, given: dict[str, Any], kind: str, model: str, config: Any) -> Response:
        addresses = _object(config).get("uris")
        endpoint = addresses[0] if isinstance(addresses, list) and addresses else ""
        webhook = {"webhook_config": {"endpoint": endpoint}}
        body = {"model": model, "task_type": kind, "input": given, "config": webhook}
        wanted = CreateRequest.model_validate(body)
        return await self._tasks.create(request, wanted, lambda task: as_json(_shown(task)), self)

    async def _get(self, request: Request) -> Response:
        return await self._tasks.look(request, self._found(request), lambda task: as_json(_shown(task)))

    async def _cancel(self, request: Request) -> Response:
        task = self._found(request)
        if task is None:
            return self.refusal(404, "not found")
        if task.terminal:
            return self.refusal(400, "it has ended")
        self._tasks.cancel(task, also_running=True)
        return as_json(_shown(task) if task.request.task_type == "interaction" else {})

    async def _models(self, request: Request) -> Response:
        return as_json({"models": []})

    async def _jwks(self, request: Request) -> Response:
        return as_json(public_jwks(self._keys))

    async def _rotate(self, request: Request) -> Response:
        """Sign with another key from now on."""
        self._keys = _new_keys()
        return as_json({})

    def _found(self, request: Request) -> SandboxTask | None:
        return self._tasks.find(request.path_params["task_id"].removeprefix("v1_"), self)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _new_keys() -> list[Ed25519PrivateKey]:
    return [Ed25519PrivateKey.generate() for _ in range(3)]


def _name(task: SandboxTask) -> str:
    match task.request.task_type:
        case "video":
            return f"models/{task.request.model}/operations/{task.id}"
        case "batch":
            return f"batches/{task.id}"
    return f"v1_{task.id}"


def _shown(task: SandboxTask) -> dict[str, Any]:
    match task.request.task_type:
        case "video":
            return _operation(task)
        case "batch":
            return _batch(task)
    return _interaction(task)


def _operation(task: SandboxTask) -> dict[str, Any]:
    if not task.terminal:
        return {"name": _name(task), **({"done": False} if task.status == "processing" else {})}
    if task.error is not None:
        return {"name": _name(task), "done": True, "error": {"code": 13, "message": task.error.message}}
    samples = [{"video": {"uri": url}} for url in _urls(task)]
    return {"name": _name(task), "done": True, "response": {"generateVideoResponse": {"generatedSamples": samples}}}


def _interaction(task: SandboxTask) -> dict[str, Any]:
    word = "failed" if task.error is not None else _INTERACTION_WORDS.get(task.status, task.status)
    shown: dict[str, Any] = {"id": _name(task), "object": "interaction", "model": task.request.model, "status": word}
    if word == "completed":
        content = [{"type": "image", "mime_type": "image/png", "uri": url} for url in _urls(task)]
        shown["steps"] = [{"type": "model_output", "content": content}]
    if task.error is not None:
        shown["errors"] = [{"code": "internal", "message": task.error.message}]
    return shown


def _batch(task: SandboxTask) -> dict[str, Any]:
    word = "FAILED" if task.error is not None else _BATCH_WORDS.get(task.status, task.status.upper())
    shown: dict[str, Any] = {"name": _name(task), "metadata": {"state": f"BATCH_STATE_{word}"}, "done": task.terminal}
    if task.error is not None:
        shown["error"] = {"code": 13, "message": task.error.message}
    if word == "SUCCEEDED":
        shown["metadata"]["output"] = {"responsesFile": f"files/{task.id}"}
    return shown


def _urls(task: SandboxTask) -> list[str]:
    return [str(value) for value in (task.output or {}).values() if str(value).startswith("http")]
