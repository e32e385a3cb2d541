"""Tells a page that something happened: the stream of the API's events, each without what it is about.

The page then asks for itself again, so that what it shows is made in one place, and a task of ten megabytes is not sent
to every page that lists it.
"""

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.api import events
from receiver.asgi import end_within
from receiver.dashboard.visit import Visit

_DATA, _EVENT, _HAPPENED = b"data: ", b"event: ", b"data: {}"


async def live(visit: Visit) -> Response | ASGIApp:
    """Return the stream; the query is that of `GET /api/v1/events`."""
    headers = {"accept": "text/event-stream"}
    if resumed := visit.request.headers.get("last-event-id"):
        headers["last-event-id"] = resumed
    response = await visit.stream(events.get_events, visit.query, headers)
    return response if isinstance(response, Response) else _without_data(response)


def _without_data(stream: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def forward(message: Message) -> None:
            if body := message.get("body"):
                message = {**message, "body": hints(body)}
            await send(message)

        end_within(scope)  # or the server would send the rest as it is
        await stream(scope, receive, forward)

    return app


def hints(frames: bytes) -> bytes:
    """Return frames of a stream, each of which is whole, as unnamed events without their data."""
    lines = [_HAPPENED if line.startswith(_DATA) else line for line in frames.split(b"\n")]
    return b"\n".join(line for line in lines if not line.startswith(_EVENT))
