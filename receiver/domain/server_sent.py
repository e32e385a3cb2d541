"""Server-Sent Events, as the WHATWG's HTML standard (9.2) has them: what a stream is made of."""

from typing import Any

import orjson


def event_frame(event_id: str, event_type: str, data: Any) -> bytes:
    """Return an event with its data as one line of JSON; `event_id` is what `Last-Event-ID` will say."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), event_type.encode(), orjson.dumps(data))


def comment(text: str, event_id: str | None = None) -> bytes:
    """Return what no reader shows; with an id it moves the reader's `Last-Event-ID` on all the same."""
    moved = f"id: {event_id}\n" if event_id is not None else ""
    return f": {' '.join(text.split())}\n{moved}\n".encode()


def retry_hint(milliseconds: int) -> bytes:
    """Return how long a reader should wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds
