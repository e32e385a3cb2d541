"""Replicate's twin: predictions, their list, and webhooks by Standard Webhooks."""

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import as_json
from receiver.sandbox.signatures import key_of, new_secret, signed_by_secret, standard_headers
from receiver.sandbox.task import CreateRequest, SandboxTask
from receiver.sandbox.tasks import Sandbox
from receiver.sandbox.twin import Endpoint, TwinTasks, has_key, json_object

_WORDS = {
    "staged": "starting",
    "pending": "starting",
    "processing": "processing",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "canceled",
}
_PAGE = 3
"""Few on a page, so that a list has several."""


class ReplicateTwin:
    """Replicate's predictions below `/replicate`."""

    name = "replicate"

    def __init__(self, sandbox: Sandbox) -> None:
        self._tasks = TwinTasks(sandbox, self.refusal)
        self._secret = new_secret()

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Return the paths of predictions, the account and the signing secret."""
        return [
            ("POST", "/v1/predictions", self._create),
            ("POST", "/v1/models/{owner}/{name}/predictions", self._create),
            ("POST", "/v1/deployments/{owner}/{name}/predictions", self._create),
            ("GET", "/v1/predictions", self._list),
            ("GET", "/v1/predictions/{prediction_id}", self._get),
            ("POST", "/v1/predictions/{prediction_id}/cancel", self._cancel),
            ("GET", "/v1/account", self._account),
            ("GET", "/v1/webhooks/default/secret", self._show_secret),
            ("POST", "/rotate-keys", self._rotate),
        ]

    def authorizes(self, request: Request) -> bool:
        """Return whether a request has a token."""
        return request.url.path.endswith("/rotate-keys") or has_key(request)

    def refusal(self, status: int, message: str, *, retry_after: int | None = None) -> Response:
        """Return a problem as Replicate writes it."""
        body = {"title": "Error", "detail": message, "status": status}
        told = body if retry_after is None else {**body, "retry_after": retry_after}
        return as_json(told, status, retry_after=retry_after)

    def tells(self, task: SandboxTask) -> bool:
        """Return whether the task begins or has ended, which are the events that are asked for."""
        return task.terminal or task.status == "processing"

    def webhook(self, task: SandboxTask) -> bytes:
        """Return the prediction, which is the body of every webhook."""
        return orjson.dumps(_prediction(task, ""))

    def signed(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers with the signature of a body, a wrong one if it is to be forged."""
        key = key_of(new_secret() if forged else self._secret)
        return standard_headers(body, lambda content: [signed_by_secret(key, content)])

    async def _create(self, request: Request) -> Response:
        given = await json_object(request)
        unknown = given.keys() - {"version", "input", "webhook", "webhook_events_filter", "stream"}
        if unknown or not isinstance(given.get("input"), dict):
            return self.refusal(422, f"Additional property {min(unknown, default='input')} is not allowed")
        path = request.path_params
        model = str(given.get("version") or f"{path.get('owner')}/{path.get('name')}")
        config = {"webhook_config": {"endpoint": given.get("webhook") or ""}}
        body = {"model": model, "task_type": "prediction", "input": given["input"], "config": config}
        wanted = CreateRequest.model_validate(body)
        return await self._tasks.create(
            request, wanted, lambda task: as_json(_prediction(task, _base(request)), 201), self
        )

    async def _get(self, request: Request) -> Response:
        base = _base(request)
        return await self._tasks.look(request, self._found(request), lambda task: as_json(_prediction(task, base)))

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        try:
            since, cursor = _moment(query.get("created_after")), int(query.get("cursor", "0"))
        except ValueError:
            return self.refusal(422, "created_after is a time, and cursor what an earlier page has named.")
        found = [task for task in self._tasks.newest_first(self) if task.created_ns / 1e9 >= since]
        more = cursor + _PAGE < len(found)
        after = f"&created_after={query['created_after'].replace('+', '%2B')}" if "created_after" in query else ""
        following = f"{_base(request)}/v1/predictions?cursor={cursor + _PAGE}{after}" if more else None
        results = [_prediction(task, _base(request)) for task in found[cursor : cursor + _PAGE]]
        return as_json({"next": following, "previous": None, "results": results})

    async def _cancel(self, request: Request) -> Response:
        task = self._found(request)
        if task is None:
            return self.refusal(404, "The requested resource could not be found.")
        if task.terminal:
            return self.refusal(422, "The prediction has ended.")
        self._tasks.cancel(task, also_running=True)
        return as_json(_prediction(task, _base(request)))

    async def _account(self, request: Request) -> Response:
        return as_json({"type": "user", "username": "sandbox", "name": "Sandbox"})

    async def _show_secret(self, request: Request) -> Response:
        return as_json({"key": self._secret})

    async def _rotate(self, request: Request) -> Response:
        """Sign with another secret from now on."""
        self._secret = new_secret()
        return as_json({})

    def _found(self, request: Request) -> SandboxTask | None:
        return self._tasks.find(request.path_params["prediction_id"], self)


def _base(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}/replicate"


def _moment(text: str | None) -> float:
    return 0.0 if text is None else datetime.fromisoformat(text).timestamp()


def _prediction(task: SandboxTask, base: str) -> dict[str, Any]:
    urls = {"get": f"{base}/v1/predictions/{task.id}", "cancel": f"{base}/v1/predictions/{task.id}/cancel"}
    failed = task.status == "failed" or task.error is not None
    return {
        "id": task.id,
        "model": task.request.model.partition(":")[0],
        "version": "hidden",
        "input": task.request.input,
        "logs": "\n".join(task.logs),
        "output": _output(task) if task.status == "completed" and not failed else None,
        "error": task.error.message if failed and task.error is not None else None,
        "status": "failed" if failed else _WORDS.get(task.status, task.status),
        "created_at": _time(task.created_ns),
        "started_at": _time(task.started_ns),
        "completed_at": _time(task.ended_ns),
        "data_removed": False,
        "metrics": {"predict_time": 0.1} if task.terminal else {},
        "urls": urls if base else {},
    }


def _output(task: SandboxTask) -> list[Any]:
    return [value for value in (task.output or {}).values() if value is not None]


def _time(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat()
