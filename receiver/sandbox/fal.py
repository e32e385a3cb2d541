"""fal's twin: the queue, results in a second call, signed webhooks, and keys that can be rotated."""

import hashlib
import time
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import as_json
from receiver.sandbox.signatures import public_jwks
from receiver.sandbox.task import CreateRequest, SandboxTask
from receiver.sandbox.tasks import Sandbox
from receiver.sandbox.twin import Endpoint, TwinTasks, has_key, json_object

_WORDS = {"staged": "IN_QUEUE", "pending": "IN_QUEUE", "processing": "IN_PROGRESS"}
_USER = "sandbox-user"


class FalTwin:
    """fal's queue below `/fal`. A request that failed is `COMPLETED`, and its result has the failure."""

    name = "fal"

    def __init__(self, sandbox: Sandbox) -> None:
        self._tasks = TwinTasks(sandbox, self.refusal)
        self._key = Ed25519PrivateKey.generate()

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Return the queue's paths, and those of its other hosts."""
        one = "/{app:path}/requests/{request_id}"
        return [
            ("GET", "/.well-known/jwks.json", self._jwks),
            ("POST", "/rotate-keys", self._rotate),
            ("GET", "/v1/models/requests/by-endpoint", self._account),
            ("GET", f"{one}/status", self._status),
            ("PUT", f"{one}/cancel", self._cancel),
            ("GET", one, self._result),
            ("POST", "/{app:path}", self._create),
        ]

    def authorizes(self, request: Request) -> bool:
        """Return whether a request has a key as fal takes it; its public keys need none."""
        if request.url.path.endswith(("/jwks.json", "/rotate-keys")):
            return True
        return has_key(request, "Key")

    def refusal(self, status: int, message: str, *, retry_after: int | None = None) -> Response:
        """Return fal's `{"detail"}`; without money it is a 403."""
        if status == 402:
            status, message = 403, "User is locked. Reason: Exhausted balance. Top up your balance."
        return as_json({"detail": message}, status, retry_after=retry_after)

    def tells(self, task: SandboxTask) -> bool:
        """Return whether the task has ended: fal tells nothing else."""
        return task.terminal

    def webhook(self, task: SandboxTask) -> bytes:
        """Return the body of the webhook of a task's end."""
        body: dict[str, Any] = {"request_id": task.id, "gateway_request_id": task.id}
        if task.status == "completed" and task.error is None:
            if task.script.webhook == "thin":
                return orjson.dumps({**body, "status": "OK", "payload": None, "payload_error": "not serializable"})
            return orjson.dumps({**body, "status": "OK", "payload": task.output})
        error = {"status": "ERROR", "error": "Invalid status code: 422", "payload": _failure(task)}
        return orjson.dumps({**body, **error})

    def signed(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers with the signature of a body, a wrong one if it is to be forged."""
        request_id = orjson.loads(body)["request_id"]
        values = [request_id, _USER, str(int(time.time()))]
        key = Ed25519PrivateKey.generate() if forged else self._key
        signature = key.sign("\n".join([*values, hashlib.sha256(body).hexdigest()]).encode()).hex()
        names = ("request-id", "user-id", "timestamp")
        headers = {f"x-fal-webhook-{name}": value for name, value in zip(names, values, strict=True)}
        return {**headers, "x-fal-webhook-signature": signature}

    async def _create(self, request: Request) -> Response:
        given = await json_object(request)
        app = request.path_params["app"]
        webhook = {"endpoint": request.query_params.get("fal_webhook", "")}
        wanted = CreateRequest.model_validate(
            {"model": app, "task_type": "queue", "input": given, "config": {"webhook_config": webhook}}
        )

        def answer(task: SandboxTask) -> Response:
            return as_json({"status": "IN_QUEUE", "queue_position": 0, "request_id": task.id, **_urls(request, task)})

        return await self._tasks.create(request, wanted, answer, self)

    async def _status(self, request: Request) -> Response:
        return await self._tasks.look(request, self._found(request), lambda task: _status(request, task))

    async def _result(self, request: Request) -> Response:
        task = self._found(request)
        if task is None:
            return self.refusal(404, "Request not found")
        if not task.terminal:
            return self.refusal(400, "Request is still in progress")
        if task.status == "completed" and task.error is None:
            return as_json(task.output)
        return as_json(_failure(task), 422)

    async def _cancel(self, request: Request) -> Response:
        task = self._found(request)
        if task is None:
            return as_json({"status": "NOT_FOUND"}, 404)
        if task.terminal:
            return as_json({"status": "ALREADY_COMPLETED"}, 400)
        if self._tasks.cancel(task):
            return as_json({"status": "OK"})
        return as_json({"status": "CANCELLATION_REQUESTED"}, 202)

    async def _account(self, request: Request) -> Response:
        return as_json({"items": [], "next_cursor": None, "has_more": False})

    async def _jwks(self, request: Request) -> Response:
        return as_json(public_jwks([self._key], is_padded=True))  # fal's own verifier in Python needs the padding

    async def _rotate(self, request: Request) -> Response:
        """Sign with another key from now on."""
        self._key = Ed25519PrivateKey.generate()
        return as_json({})

    def _found(self, request: Request) -> SandboxTask | None:
        return self._tasks.find(request.path_params["request_id"], self)


def _status(request: Request, task: SandboxTask) -> Response:
    word = _WORDS.get(task.status, "COMPLETED")
    body: dict[str, Any] = {"status": word, "request_id": task.id, **_urls(request, task)}
    if word == "IN_QUEUE":
        return as_json({**body, "queue_position": 1}, 202)
    body["logs"] = [{"message": line, "timestamp": "2026-01-01T00:00:00Z"} for line in task.logs]
    if task.status == "cancelled":
        body |= {"error": "Request was cancelled by the client", "error_type": "client_cancelled"}
    return as_json(body, 202 if word == "IN_PROGRESS" else 200)


def _urls(request: Request, task: SandboxTask) -> dict[str, str]:
    # Without the app's sub path, as fal's own addresses are.
    app = "/".join(task.request.model.split("/")[:2])
    url = f"{str(request.base_url).rstrip('/')}/fal/{app}/requests/{task.id}"
    return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}


def _failure(task: SandboxTask) -> dict[str, Any]:
    message = task.error.message if task.error is not None else "cancelled"
    detail = {"loc": ["body", "prompt"], "msg": message, "type": "content_policy_violation"}
    return {"detail": [{**detail, "input": task.request.input}]}
