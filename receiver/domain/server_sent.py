"""The frames of a stream of Server-Sent Events (WHATWG HTML standard, 9.2)."""

from typing import Any

import orjson


def event_frame(event_id: str, event_type: str, data: Any) -> bytes:
    """Return the frame of an event, its data as one line of JSON. A reader sends `event_id` back as `Last-Event-ID`."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), event_type.encode(), orjson.dumps(data))


def comment(text: str, event_id: str | None = None) -> bytes:
    """Return a comment, which readers ignore. With an id, it still sets the `Last-Event-ID` of the reader."""
    id_line = f"id: {event_id}\n" if event_id is not None else ""
    return f": {' '.join(text.split())}\n{id_line}\n".encode()


def retry_hint(milliseconds: int) -> bytes:
    """Return the frame that sets how long a reader waits before it reconnects."""
    return b"retry: %d\n\n" % milliseconds
