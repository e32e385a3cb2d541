"""The sandbox as an ASGI app: its routes, the check of the API key, startup and shutdown."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox.answers import model_refusal, refusal
from receiver.sandbox.controls import ControlPaths
from receiver.sandbox.declared import DeclaredTwin, Description
from receiver.sandbox.direct import DirectPaths
from receiver.sandbox.fal import FalTwin
from receiver.sandbox.gemini import GeminiTwin
from receiver.sandbox.openai import OpenAITwin
from receiver.sandbox.pi import PiTwin
from receiver.sandbox.piapi import PiapiPaths
from receiver.sandbox.replicate import ReplicateTwin
from receiver.sandbox.script import SandboxOptions
from receiver.sandbox.tasks import Sandbox
from receiver.sandbox.twin import Twin

Endpoint = Callable[[Request], Awaitable[Response]]


def create_sandbox(options: SandboxOptions, described: Sequence[Description] = ()) -> Starlette:
    """Return a provider with no tasks, and twins of others, also of those `described` by files.

    It sends webhooks only while its lifespan runs.
    """
    sandbox = Sandbox(options)
    requests: Counter[str] = Counter()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await sandbox.sender.open()
        try:
            yield
        finally:
            await sandbox.background.stop()
            await sandbox.sender.close()

    def counted(method: str, path: str, endpoint: Endpoint) -> Route:
        async def count(request: Request) -> Response:
            requests[f"{method} {path}"] += 1
            return await endpoint(request)

        return Route(path, count, methods=[method])

    routes = [
        *_piapi_routes(PiapiPaths(sandbox)),
        *_direct_routes(DirectPaths(sandbox)),
        *_control_routes(ControlPaths(sandbox, requests)),
    ]
    coded: list[Twin] = [
        FalTwin(sandbox),
        GeminiTwin(sandbox),
        OpenAITwin(sandbox),
        PiTwin(sandbox),
        ReplicateTwin(sandbox),
    ]
    twins = [*coded, *(DeclaredTwin(sandbox, each) for each in described)]
    return Starlette(
        routes=[
            *(counted(method, path, _guarded(sandbox, path, endpoint)) for method, path, endpoint in routes),
            *(
                counted(method, f"/{twin.name}{path}", _of_twin(twin, endpoint))
                for twin in twins
                for method, path, endpoint in twin.routes()
            ),
        ],
        exception_handlers={HTTPException: _in_piapi_form},
        lifespan=lifespan,
    )


def _piapi_routes(piapi: PiapiPaths) -> list[tuple[str, str, Endpoint]]:
    return [
        ("POST", "/api/v1/task", piapi.create),
        ("GET", "/api/v1/task/{task_id}", piapi.get),
        ("DELETE", "/api/v1/task/{task_id}", piapi.cancel),
        ("POST", "/api/v1/task/{task_id}/cancel", piapi.cancel),
        ("DELETE", "/api/v1/tasks", piapi.cancel_many),
        ("GET", "/account/active_tasks", piapi.active),
        ("GET", "/account/info", piapi.account),
        ("GET", "/api/open/tasks/histories", piapi.histories),
    ]


def _direct_routes(direct: DirectPaths) -> list[tuple[str, str, Endpoint]]:
    return [
        ("POST", "/v1/chat/completions", direct.chat),
        ("POST", "/v1/images/generations", direct.images),
        ("POST", "/v1/audio/speech", direct.speech),
        ("POST", "/api/ephemeral_resource", direct.upload),
    ]


def _control_routes(controls: ControlPaths) -> list[tuple[str, str, Endpoint]]:
    return [
        ("GET", "/sandbox/stats", controls.stats),
        ("GET", "/sandbox/tasks", controls.tasks),
        ("POST", "/sandbox/tasks/{task_id}/advance", controls.advance),
        ("POST", "/sandbox/options", controls.options),
        ("GET", "/files/{name}", controls.file),
    ]


def _guarded(sandbox: Sandbox, path: str, endpoint: Endpoint) -> Endpoint:
    """Return the endpoint behind the check of the key, which the sandbox's own paths and the files do not need."""
    if path.startswith(("/sandbox/", "/files/")):
        return endpoint
    refuse = model_refusal if path.startswith("/v1/") else refusal

    async def guard(request: Request) -> Response:
        return await endpoint(request) if sandbox.authorizes(request) else refuse(401, "unauthorized")

    return guard


def _of_twin(twin: Twin, endpoint: Endpoint) -> Endpoint:
    """Return the endpoint behind the check of the key in the provider's own form, as what it cannot read is refused."""

    async def guard(request: Request) -> Response:
        if not twin.authorizes(request):
            return twin.refusal(401, "the key is missing")
        try:
            return await endpoint(request)
        except ValidationError as error:
            return twin.refusal(422, str(error.errors()[0]["msg"]))

    return guard


async def _in_piapi_form(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return refusal(error.status_code, error.detail)
