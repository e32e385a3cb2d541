"""The provider's webhooks: sent, lost, doubled, late, sent again and forged, as the weather says; all written down."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import httpx

from tests.prove.history import History
from tests.prove.weather import Weather

_ATTEMPTS = 3
_RETRY_SECONDS = 1.0
_LATE_SECONDS = 2.0
_LATER_SECONDS = (2.0, 6.0)
_TIMEOUT_SECONDS = 5.0
_ENDS = ("completed", "failed", "cancelled")
Work = Coroutine[Any, Any, None]


class Notices:
    """Sends webhooks. `route` turns the registered URL into that of a process that serves, as a load balancer does."""

    def __init__(self, history: History, client: httpx.AsyncClient, route: Callable[[str], str]) -> None:
        self._history = history
        self._client = client
        self._route = route

    def of(
        self,
        task_id: str,
        endpoint: str,
        secret: str,
        data: Mapping[str, Any],
        weather: Weather,
        rng: random.Random,
    ) -> Iterator[Work]:
        """Yield what is to be sent for the present state of a task, as coroutines that send it."""
        lost, doubled, late, later, forged = (rng.random() for _ in range(5))
        delay = rng.uniform(0, _LATE_SECONDS) if late < weather.late else 0.0
        kind = "late" if delay else "true"
        body = {"timestamp": int(time.time()), "data": dict(data)}

        def send(delay: float, kind: str, secret: str = secret, body: Any = body) -> Work:
            return self._send(endpoint, secret, body, task_id=task_id, delay=delay, kind=kind)

        if lost < weather.lost:
            self._history.write("fault", "webhook lost", hit=True, provider_task_id=task_id)
            self._history.write(
                "provider", "webhook", provider_task_id=task_id, status=data["status"], kind="lost", answer=None
            )
        else:
            yield send(delay, kind)
        if doubled < weather.doubled:
            yield send(0.0, "double")
        if later < weather.repeated_later:
            yield send(rng.uniform(*_LATER_SECONDS), "double")
        if forged < weather.forged:
            yield send(0.0, "forged", "not-the-secret-of-this-task", _forged(body, rng))

    async def _send(
        self, endpoint: str, secret: str, body: dict[str, Any], *, task_id: str, delay: float, kind: str
    ) -> None:
        await asyncio.sleep(delay)
        for attempt in range(1 if kind == "forged" else _ATTEMPTS):
            if attempt:
                await asyncio.sleep(_RETRY_SECONDS)
            answer = await self._post(endpoint, secret, body)
            self._history.write(
                "provider",
                "webhook",
                provider_task_id=task_id,
                status=body["data"]["status"],
                kind=kind,
                answer=answer,
            )
            if kind != "true" and not attempt:
                hit = answer is not None
                self._history.write("fault", f"webhook {kind}", hit=hit, provider_task_id=task_id)
            if answer is not None and answer < 300:
                return

    async def _post(self, endpoint: str, secret: str, body: Any) -> int | None:
        headers = {"x-webhook-secret": secret}
        try:
            answer = await self._client.post(
                self._route(endpoint), json=body, headers=headers, timeout=httpx.Timeout(_TIMEOUT_SECONDS, pool=None)
            )
        except httpx.TransportError:
            return None
        return answer.status_code


def _forged(body: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a body that claims an end with an output or error that the provider never gave."""
    status = rng.choice(_ENDS)
    claimed = {"status": status, "output": {"image_url": "https://example.com/forged.png"}}
    return {**body, "data": {**body["data"], **claimed}}
