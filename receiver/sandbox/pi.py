"""Pi's twin: runs and jobs, and webhooks of jobs to the addresses that are registered, signed with their secrets."""

import hmac
import secrets
import time
import uuid
from typing import Any

import orjson
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import as_json
from receiver.sandbox.task import CreateRequest, SandboxTask
from receiver.sandbox.tasks import Sandbox
from receiver.sandbox.twin import Endpoint, TwinTasks, has_key, json_object

_JOB_WORDS = {"staged": "queued", "pending": "queued", "processing": "processing", "completed": "completed"}
_RUN_WORDS = {"staged": "pending", "pending": "pending", "processing": "in_progress", "cancelled": "cancelled"}
_ORGANIZATION = "30c0342f-4f28-4a13-9d63-5f5a10f57cc6"
_ERRORS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "not_allowed"),
    404: ("invalid_request_error", "not_found"),
    409: ("invalid_request_error", "idempotency_key_mismatch"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("api_error", "job_create_failed"),
    502: ("api_error", "job_trigger_failed"),
}
_BAD_REQUEST = ("invalid_request_error", "invalid_request_body")


class _Registered(Struct):
    """An address for webhooks, as an account registers it."""

    id: str
    endpoint_url: str
    secret: str
    is_active: bool = True

    def shown(self) -> dict[str, Any]:
        """Return it without its secret, which is never told again."""
        made = "2026-01-01T00:00:00Z"
        told = {"id": self.id, "endpoint_url": self.endpoint_url, "is_active": self.is_active}
        return {"object": "webhook", **told, "created_at": made, "updated_at": made}


class PiTwin:
    """Pi below `/pi`. Its runs tell no webhook, cannot be cancelled, and ignore an idempotency key."""

    name = "pi"

    def __init__(self, sandbox: Sandbox) -> None:
        self._tasks = TwinTasks(sandbox, self.refusal)
        self._webhooks: dict[str, _Registered] = {}
        self._answers: dict[tuple[str, str], tuple[bytes, dict[str, Any]]] = {}

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Return the paths of webhooks, runs and jobs."""
        return [
            ("POST", "/api/v1/webhooks", self._register),
            ("GET", "/api/v1/webhooks", self._registered),
            ("PATCH", "/api/v1/webhooks/{webhook_id}", self._switch),
            ("POST", "/api/v1/runs", self._create_run),
            ("GET", "/api/v1/runs/{task_id}", self._get_run),
            ("GET", "/api/v1/jobs/{task_id}", self._get_job),
            ("POST", "/api/v1/{group}/{action}", self._create_job),
        ]

    def authorizes(self, request: Request) -> bool:
        """Return whether a request has a key."""
        return has_key(request)

    def refusal(self, status: int, message: str, *, retry_after: int | None = None, code: str = "") -> Response:
        """Return an error of Pi's; `code` if it is not the usual one of the status."""
        kind, usual = _ERRORS.get(status, _BAD_REQUEST)
        error: dict[str, Any] = {"type": kind, "code": code or usual, "message": message, "request_id": _request_id()}
        told = error if retry_after is None else {**error, "retry_after": retry_after}
        return as_json({"error": told}, status, retry_after=retry_after)

    def tells(self, task: SandboxTask) -> bool:
        """Return whether the task is a job that has ended: nothing else is told."""
        return task.terminal and not _is_run(task)

    def webhook(self, task: SandboxTask) -> bytes:
        """Return the event of a job's end. Its id is another one for each attempt, as Pi's are."""
        job = _job(task)
        event = {"id": f"evt_pi_{uuid.uuid4()}", "object": "event", "type": f"job.{job['status']}"}
        return orjson.dumps({**event, "created_at": int(time.time()), "data": {"job": job}})

    def signed(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers with the signature of a body, a wrong one if it is to be forged."""
        active = self._active()
        secret = secrets.token_hex() if forged or active is None else active.secret
        digest = hmac.digest(secret.encode(), body, "sha256").hex()
        return {"x-pi-event": orjson.loads(body)["type"], "x-pi-signature": f"sha256={digest}"}

    async def _register(self, request: Request) -> Response:
        given = await json_object(request)
        endpoint, secret = given.get("endpoint_url"), given.get("secret")
        if not isinstance(endpoint, str) or not endpoint.startswith(("http://", "https://")):
            return self.refusal(400, "endpoint_url must be a URL", code="invalid_endpoint_url")
        if not isinstance(secret, str) or not 8 <= len(secret) <= 500:
            return self.refusal(400, "secret must have 8 to 500 characters")
        made = _Registered(str(uuid.uuid4()), endpoint, secret)
        self._webhooks[made.id] = made
        return _enveloped("webhook", made.shown())

    async def _registered(self, request: Request) -> Response:
        return _enveloped("list", {"object": "list", "data": [each.shown() for each in self._webhooks.values()]})

    async def _switch(self, request: Request) -> Response:
        found = self._webhooks.get(request.path_params["webhook_id"])
        if found is None:
            return self.refusal(404, "Webhook not found.")
        wanted = (await json_object(request)).get("is_active")
        if not isinstance(wanted, bool):
            return self.refusal(400, "Nothing to change.", code="no_changes")
        found.is_active = wanted
        return _enveloped("webhook", found.shown())

    async def _create_run(self, request: Request) -> Response:
        given = await json_object(request)
        steps = given.get("steps")
        if (
            not isinstance(steps, list)
            or not 1 <= len(steps) <= 10
            or not all(isinstance(each, dict) for each in steps)
        ):
            return self.refusal(400, "steps must have 1 to 10 steps")
        names = [each.get("id") for each in steps]
        if len(set(map(str, names))) < len(names):
            return self.refusal(400, "duplicate_step_id", code="invalid_run_dag")
        told = [{"id": name, "status": "pending"} for name in names]

        def answer(task: SandboxTask) -> Response:
            return _enveloped("run", {"run_id": task.id, "status": "pending", "steps": told}, 202)

        return await self._tasks.create(request, _wanted("runs", given), answer, self)

    async def _create_job(self, request: Request) -> Response:
        given, body = await json_object(request), await request.body()
        action = f"{request.path_params['group']}.{request.path_params['action']}"
        key = request.headers.get("idempotency-key", "")
        if key and (earlier := self._answers.get((action, key))) is not None:
            if earlier[0] != body:
                return self.refusal(409, "Idempotency-Key was used with another body.")
            replayed = _enveloped("job", earlier[1], 202)
            replayed.headers["x-idempotency-replayed"] = "true"
            return replayed

        def answer(task: SandboxTask) -> Response:
            data = {"job_id": task.id}
            if key:
                self._answers[action, key] = body, data
            return _enveloped("job", data, 202)

        active = self._active()
        endpoint = active.endpoint_url if active is not None else None
        return await self._tasks.create(request, _wanted(action, given), answer, self, endpoint=endpoint)

    async def _get_run(self, request: Request) -> Response:
        found = self._found(request, is_run=True)
        return await self._tasks.look(request, found, lambda task: _enveloped("run", _run(task)))

    async def _get_job(self, request: Request) -> Response:
        found = self._found(request, is_run=False)
        return await self._tasks.look(request, found, lambda task: _enveloped("job", _job(task)))

    def _found(self, request: Request, *, is_run: bool) -> SandboxTask | None:
        task = self._tasks.find(request.path_params["task_id"], self)
        return task if task is not None and _is_run(task) == is_run else None

    def _active(self) -> _Registered | None:
        """Return the address that was registered last of those that are active: the twin tells one."""
        return next((each for each in reversed(self._webhooks.values()) if each.is_active), None)


def _wanted(model: str, given: dict[str, Any]) -> CreateRequest:
    return CreateRequest.model_validate({"model": model, "task_type": "pi", "input": given})


def _is_run(task: SandboxTask) -> bool:
    return task.request.model == "runs"


def _request_id() -> str:
    return f"req_pi_{uuid.uuid4()}"


def _enveloped(kind: str, data: dict[str, Any], status: int = 200) -> Response:
    """Return data in Pi's envelope, whose own status is that of the request."""
    name = _request_id()
    state = "queued" if status == 202 else "completed"
    body = {"id": name, "object": kind, "status": state, "created_at": int(time.time()), "data": data}
    answer = as_json(body, status)
    answer.headers["x-request-id"] = name
    return answer


def _times(task: SandboxTask) -> dict[str, int]:
    changed = task.ended_ns or task.started_ns or task.created_ns
    return {"created_at": task.created_ns // 10**9, "updated_at": changed // 10**9}


def _error(task: SandboxTask) -> str | None:
    return None if task.error is None else task.error.message


def _job(task: SandboxTask) -> dict[str, Any]:
    status = "failed" if task.error is not None else _JOB_WORDS.get(task.status, "failed")
    url = next((each for each in (task.output or {}).values() if isinstance(each, str)), None)
    return {
        "id": task.id,
        "org_id": _ORGANIZATION,
        "type": task.request.model.replace(".", "_"),
        "status": status,
        "payload": {"phase": task.status, "input": task.request.input},
        "result_url": url if status == "completed" else None,
        "error_log": _error(task) if status == "failed" else None,
        **_times(task),
    }


def _run(task: SandboxTask) -> dict[str, Any]:
    failed = task.status == "failed" or task.error is not None
    status = "failed" if failed else _RUN_WORDS.get(task.status, "completed")
    word = {"in_progress": "processing", "cancelled": "skipped"}.get(status, status)
    steps = [
        {
            "id": each.get("id"),
            "action": each.get("action"),
            "status": word,
            "depends_on": each.get("depends_on") or [],
            "job_id": None,
            "result": dict(task.output or {}) if status == "completed" else None,
            "error": _error(task),
            "started_at": None,
            "completed_at": None,
        }
        for each in task.request.input["steps"]
    ]
    told = {"id": task.id, "org_id": _ORGANIZATION, "status": status, "steps": steps}
    return {**told, "metadata": task.request.input.get("metadata"), **_times(task)}
