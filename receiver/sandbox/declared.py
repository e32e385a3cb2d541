"""A twin of any provider that a file describes: its paths, keys, callbacks and signatures as the file has them.

What its answers look like is in the file's recorded cases, under `twin`: bodies with `$id`, `$word`, `$url` and others
in place of what differs from task to task.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import orjson
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import as_json
from receiver.sandbox.declared_proofs import Signer, is_authorized
from receiver.sandbox.files import sample
from receiver.sandbox.forms import form_fields
from receiver.sandbox.task import CreateRequest, SandboxTask
from receiver.sandbox.tasks import Sandbox
from receiver.sandbox.twin import Endpoint, TwinTasks, json_object

_PLACE = re.compile(r"\{([a-z_]+)(?::path)?\}")
_NAME = re.compile(r"\$([a-z]+)")
_CHALLENGE_SECONDS = 3
_OPEN = ("/jwks.json", "/rotate-keys")


class Description(Struct, frozen=True):
    """A provider's file, and the `twin` of its cases."""

    file: Mapping[str, Any]
    twin: Mapping[str, Any]


class DeclaredTwin:
    """A declared provider below `/{name}`."""

    def __init__(self, sandbox: Sandbox, description: Description) -> None:
        self._file, self._forms = description.file, description.twin
        self.name = str(self._file["name"])
        self._sandbox = sandbox
        self._tasks = TwinTasks(sandbox, self.refusal)
        self._signer = Signer(self._file.get("webhook", {}).get("proof", {}))
        self._references: dict[str, str] = {}

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Return the paths of the file's calls; those without places first, which others would take too."""
        calls: list[tuple[str, Endpoint]] = [
            ("account", self._account),
            ("result", self._result),
            ("look", self._look),
            ("find", self._look),
            ("download", self._download),
            ("cancel", self._cancel),
            ("list", self._list),
            ("submit", self._create),
        ]
        routes: dict[tuple[str, str], Endpoint] = {("POST", "/rotate-keys"): self._rotate}
        if (jwks := self._signer.jwks_path) is not None:
            routes["GET", jwks] = self._jwks
        for name, endpoint in calls:
            if (call := self._file.get(name)) is not None:
                method = call.get("method", {"submit": "POST", "cancel": "POST"}.get(name, "GET"))
                path = call["path"].replace("{reference}", "{id}")
                routes.setdefault((method, path), endpoint)
        return [(method, path, endpoint) for (method, path), endpoint in routes.items()]

    def authorizes(self, request: Request) -> bool:
        """Return whether a request has what the file says that every call has."""
        if request.url.path.endswith((*_OPEN, self._signer.jwks_path or _OPEN[0])):
            return True
        return is_authorized(self._file, request.headers, self._sandbox.options.api_key)

    def refusal(self, status: int, message: str, *, retry_after: int | None = None) -> Response:
        """Return an error in the recorded form: that of its status, else the usual one."""
        forms = self._forms["errors"]
        form = forms.get(str(status), forms["*"])
        values = {"status": status, "message": message}
        told = int(_filled(form.get("status", "$status"), values))
        return as_json(_filled(form["body"], values), told, retry_after=retry_after)

    def tells(self, task: SandboxTask) -> bool:
        """Return whether the provider sends a webhook for the task's state."""
        return "webhook" in self._forms and _state(task) in self._forms.get("tells", (_state(task),))

    def webhook(self, task: SandboxTask) -> bytes:
        """Return the body of a webhook."""
        return orjson.dumps(self._shown("webhook", task))

    def signed(self, body: bytes, *, forged: bool) -> dict[str, str]:
        """Return the headers that prove a body."""
        return self._signer.headers(body, forged=forged)

    async def _create(self, request: Request) -> Response:
        submit = self._file["submit"]
        body = await form_fields(request) if submit.get("sends") == "multipart" else await json_object(request)
        if body is None:
            return self.refusal(400, "content-type: must be multipart/form-data")
        endpoint = _at(submit.get("callback"), request, body)
        if endpoint and "challenge" in self._forms and not await self._is_echoed(endpoint):
            return self.refusal(400, "fail to check callback url")
        inner = body.get("input")
        given = inner if isinstance(inner, dict) and "sandbox" in inner else body
        model = str(body.get("model") or body.get("model_name") or "any")
        config = {"webhook_config": {"endpoint": endpoint}}
        wanted = CreateRequest.model_validate(
            {"model": model, "task_type": "declared", "input": given, "config": config}
        )
        reference = _at(submit.get("reference"), request, body)

        def answered(task: SandboxTask) -> Response:
            if reference:
                self._references[reference] = task.id
            return as_json(self._shown("created", task), self._forms.get("created_status", 200))

        return await self._tasks.create(request, wanted, answered, self)

    async def _look(self, request: Request) -> Response:
        found = self._found(request, "look", "find")
        return await self._tasks.look(request, found, lambda task: self._answer("look", task))

    async def _result(self, request: Request) -> Response:
        task = self._found(request, "result")
        return self.refusal(404, "not found") if task is None else as_json(self._shown("result", task))

    async def _download(self, request: Request) -> Response:
        task = self._found(request, "download")
        if task is None or not task.terminal:
            return self.refusal(404 if task is None else 425, "not found" if task is None else "too early")
        return Response(sample("video/mp4"), media_type="video/mp4")

    async def _cancel(self, request: Request) -> Response:
        task = self._found(request, "cancel")
        if task is None:
            return self.refusal(404, "not found")
        if task.terminal and self._file["capabilities"].get("erases_ended"):
            del self._sandbox.tasks[task.id]
        elif not self._tasks.cancel(task):
            return self.refusal(409, f"the task is {_state(task)}")
        return as_json(self._shown("cancelled", task))

    async def _list(self, _request: Request) -> Response:
        items = [self._shown("item", task) for task in self._tasks.newest_first(self)]
        return as_json(_filled(self._forms["list"], {"tasks": items}))

    async def _account(self, _request: Request) -> Response:
        return as_json(self._forms["account"], self._forms.get("account_status", 200))

    async def _jwks(self, _request: Request) -> Response:
        return as_json(self._signer.jwks())

    async def _rotate(self, _request: Request) -> Response:
        """Sign with another key from now on, where the provider publishes its keys."""
        self._signer.rotate()
        return as_json({})

    async def _is_echoed(self, endpoint: str) -> bool:
        """Send a challenge; return whether it comes back in time."""
        sent = _filled(self._forms["challenge"], {"challenge": secrets.token_hex(12)})
        try:
            async with asyncio.timeout(_CHALLENGE_SECONDS), httpx.AsyncClient(trust_env=False) as client:
                return bool((await client.post(endpoint, json=sent)).json() == sent)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError):
            return False

    def _found(self, request: Request, *calls: str) -> SandboxTask | None:
        """Return the task that a request names, by its id or our reference, in the path or the query."""
        names = list(request.path_params.items())
        for call in calls:
            texts = self._file.get(call, {}).get("query", {}).items()
            names += [(place[1], request.query_params.get(key, "")) for key, text in texts if (place := _place(text))]
        given = [value for name, value in names if name not in ("model", "task_type")]
        found = (self._tasks.find(self._references.get(value, value), self) for value in given)
        return next((task for task in found if task is not None), None)

    def _answer(self, name: str, task: SandboxTask) -> Response:
        """Return an answer about a task: JSON, or a file where its head says so."""
        forms, state = self._forms.get(f"{name}_head", {}), _state(task)
        head = forms.get(state, forms.get("*", {}))
        status, headers = head.get("status", 200), head.get("headers", {})
        if (kind := headers.get("content-type")) is not None:
            return Response(sample(kind), status, headers)
        answer = as_json(self._shown(name, task), status)
        answer.headers.update(headers)
        return answer

    def _shown(self, name: str, task: SandboxTask) -> Any:
        """Return a body about a task, in the form for its state, else the one for any."""
        form, state = self._forms[name], _state(task)
        if isinstance(form, dict) and "*" in form:
            form = form.get(state, form["*"])
        words = self._file["words"]
        word = self._forms.get(f"{name}_words", {}).get(state) or words.get(state, words["completed"])[0]
        values = {
            "id": task.id,
            "word": word,
            "url": f"{task.files_url}/{task.id}.mp4",
            "message": task.error.message if task.error is not None else "",
            "seconds": task.created_ns // 10**9,
            "endpoint": task.request.webhook.endpoint,
            "input": task.request.input,
            "now": int(time.time()),
        }
        return _filled(form, values)


def _state(task: SandboxTask) -> str:
    if task.error is not None:
        return "failed"
    return "pending" if task.status == "staged" else task.status


def _place(text: str) -> "re.Match[str] | None":
    return _PLACE.fullmatch(text)


def _at(place: Mapping[str, str] | None, request: Request, body: Any) -> str:
    """Return what a request has at a place, "" if there is nothing."""
    if place is None:
        return ""
    name = place["name"]
    if place.get("in") == "query":
        return request.query_params.get(name, "")
    if place.get("in") == "header":
        return request.headers.get(name, "")
    for part in name.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body if isinstance(body, str) else ""


def _filled(form: Any, values: Mapping[str, Any]) -> Any:
    """Return a recorded body with its names filled in; a text that is a name alone becomes the value itself."""
    if isinstance(form, dict):
        return {key: _filled(value, values) for key, value in form.items()}
    if isinstance(form, list):
        return [_filled(each, values) for each in form]
    if not isinstance(form, str):
        return form
    whole = _NAME.fullmatch(form)
    return values[whole[1]] if whole else _NAME.sub(_text_of(values), form)


def _text_of(values: Mapping[str, Any]) -> Callable[["re.Match[str]"], str]:
    return lambda found: str(values[found[1]])
