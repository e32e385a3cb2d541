"""The API as `ringback mcp` calls it: over HTTP."""

from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from receiver.mcp.service_api import ApiAnswer, ApiRequest, NotReached


class RemoteApi:
    """Sends requests with an httpx client of the service."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._scope: str | None = None

    @property
    def is_ending(self) -> bool:
        """Return False: the end of stdin cancels what waits."""
        return False

    async def send(self, request: ApiRequest) -> ApiAnswer:
        """Send a request. Raises `NotReached`."""
        base = str(self._client.base_url).rstrip("/")
        try:
            answer = await self._client.request(
                request.method,
                request.path,
                params=httpx.QueryParams(list(request.query)),
                content=request.body,
                headers=dict(request.headers or {}),
            )
        except httpx.ConnectError:
            raise NotReached(
                f"cannot reach {base}: start the service with `ringback serve`, or set RINGBACK_URL"
            ) from None
        except httpx.TimeoutException:
            raise NotReached(f"{base} did not respond in time") from None
        except httpx.TransportError:
            raise NotReached(f"the connection to {base} was lost before the response") from None
        return ApiAnswer(answer.status_code, answer.content, {name.lower(): v for name, v in answer.headers.items()})

    async def scope(self) -> str | None:
        """Return the scope of the key, which the service is asked for once; None while it cannot say."""
        if self._scope is None:
            try:
                answer = await self.send(ApiRequest("GET", "/api/v1/organization"))
            except NotReached:
                return None
            self._scope = _scope_in(answer)
        return self._scope


def _scope_in(answer: ApiAnswer) -> str | None:
    """Return the scope that `GET /api/v1/organization` names; None for any other answer."""
    value: Any
    try:
        value = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    for name in ("data", "key", "scope"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None
