"""A server between a client and the service, which passes requests on and records what was asked and answered."""

from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.sandbox.files import media_type_of, sample

_OF_THE_CONNECTION = frozenset({"host", "connection", "content-length", "transfer-encoding", "keep-alive"})
_SHORTEST_CUT = 400


@dataclass(frozen=True)
class Exchange:
    """One request of a client, and the service's answer. `body` and `answer` are parsed if they are JSON."""

    operation: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int
    answer: Any

    @property
    def shown(self) -> str:
        """One line about it, with the answer cut short."""
        answer = self.answer if isinstance(self.answer, str) else orjson.dumps(self.answer).decode()
        return f"{self.method} {self.path} -> {self.status} {answer[:_SHORTEST_CUT]}"


class Recorder:
    """Passes on to the service at `base`. The driver names the operation that the next requests belong to."""

    def __init__(self, base: str) -> None:
        self.operation = ""
        self.exchanges: list[Exchange] = []
        self._service = httpx.AsyncClient(base_url=base, timeout=60, trust_env=False)

    async def close(self) -> None:
        """Close the connections to the service."""
        await self._service.aclose()

    def app(self) -> Starlette:
        """Return the server's application."""
        methods = ["GET", "POST", "DELETE", "PUT", "PATCH"]
        return Starlette(
            routes=[
                Route("/recorder/operation", self._name, methods=["POST"]),
                Route("/recorder/picture.png", _picture),
                Route("/{path:path}", self._pass_on, methods=methods),
            ]
        )

    async def _name(self, request: Request) -> Response:
        self.operation = (await request.body()).decode()
        return Response()

    async def _pass_on(self, request: Request) -> Response:
        body = await request.body()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers = {name: value for name, value in request.headers.items() if name not in _OF_THE_CONNECTION}
        answer = await self._service.request(request.method, path, headers=headers, content=body)
        self.exchanges.append(
            Exchange(
                operation=self.operation,
                method=request.method,
                path=path,
                headers=headers,
                body=_parsed(body),
                status=answer.status_code,
                answer=_parsed(answer.content),
            )
        )
        passed = {"content-type": answer.headers.get("content-type", "application/octet-stream")}
        return Response(answer.content, answer.status_code, headers=passed)


async def _picture(_: Request) -> Response:
    """Return the picture that some clients fetch before they send it in a request."""
    media_type = media_type_of("picture.png")
    return Response(sample(media_type), media_type=media_type)


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")
