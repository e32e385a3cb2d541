"""`GET /api/v1/events`: the events, in pages or as a live stream."""

from msgspec.structs import replace
from starlette.types import ASGIApp

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.event_stream import EventStream
from receiver.api.lists import page, read_cursor, write_cursor
from receiver.api.runs import find_run_ids
from receiver.api.schemas import EventQuery
from receiver.domain.matching import check_event_types
from receiver.domain.representations import iso
from receiver.domain.server_sent import comment, event_frame, retry_hint
from receiver.errors import BadRequest, EventsLost, Unavailable
from receiver.storage.events import FILTERS, EventFilter

_LISTS = ("event_types", *FILTERS)
_MOST_DIGITS = 18
_RETRY_MILLISECONDS = 2000


async def get_events(call: Call) -> Reply | ASGIApp:
    """List events, or follow them as a live stream; `Accept: text/event-stream` asks for that.

    A page is newest first; after `Last-Event-ID` or the query's `after`, it is oldest first. The stream starts after
    that event, or with the next one. `brief` is of pages alone, and `scan_limit` of those that are newest first.
    """
    query = call.query(EventQuery, lists=_LISTS)
    wanted = await _filter(call, query)
    given = call.request.headers.get("last-event-id") or query.after
    if _wants_stream(call):
        _refuse(query, "of pages alone", "brief", "scan_limit")
        return await _stream(call, wanted, given)
    if given is None:
        return await _newest_first(call, query, wanted)
    _refuse(query, "of pages that are newest first", "scan_limit")
    limit, cursor = query.limit, read_cursor(query.cursor)
    streams = call.services.streams
    after = await streams.check(call.organization_id, _position(given)) if cursor is None else cursor
    events, is_cut = await streams.read_after(wanted, after, limit + 1, call.hold, brief=query.brief)
    return page([{"id": event["sequence"]} for event in events], limit, events, is_cut=is_cut)


async def _newest_first(call: Call, query: EventQuery, wanted: EventFilter) -> Reply:
    """Return a page, newest first. Of a filter that few events pass, it may end where it has looked at enough of them.

    A filter on a task or run is answered by an index, however few events pass.
    """
    streams, limit, cursor = call.services.streams, query.limit, read_cursor(query.cursor)
    is_by_index = wanted.task_uid is not None or "run_id" in wanted.filters
    beyond = None
    if query.scan_limit is not None and not is_by_index:
        beyond = await streams.beyond(call.organization_id, cursor, query.scan_limit)
    since = None if beyond is None else beyond[0] + 1
    events, is_cut = await streams.read_before(wanted, cursor, limit + 1, call.hold, since=since, brief=query.brief)
    reply = page([{"id": event["sequence"]} for event in events], limit, events, is_cut=is_cut)
    if query.scan_limit is None:
        return reply
    if beyond is None or since is None or reply.data["has_more"]:
        return replace(reply, data={**reply.data, "scanned_until": None})
    rest = {"has_more": True, "next_cursor": write_cursor(since), "scanned_until": iso(beyond[1])}
    return replace(reply, data={**reply.data, **rest})


def _refuse(query: EventQuery, words: str, *names: str) -> None:
    for name in names:
        if getattr(query, name):
            raise BadRequest(f"is {words}", code="invalid_query_params", param=name)


async def _stream(call: Call, wanted: EventFilter, given: str | None) -> EventStream:
    """Return the stream, counted as one of the organization's; it ends that count itself."""
    quotas = call.services.quotas
    quotas.take_stream(call.organization_id)
    try:
        return await _counted_stream(call, wanted, given)
    except BaseException:
        quotas.leave_stream(call.organization_id)
        raise


async def _counted_stream(call: Call, wanted: EventFilter, given: str | None) -> EventStream:
    streams = call.services.streams
    if streams.feed.closed:
        raise Unavailable("the service is stopping: connect again")
    after, notice = await streams.now(), b""
    if given is not None:
        try:
            after = await streams.check(call.organization_id, _position(given))
        except EventsLost as error:
            notice = _reset(error, after)
    greeting = retry_hint(_RETRY_MILLISECONDS) + notice + comment("from here on", str(after))
    return EventStream(call, wanted, after, greeting)


def _reset(error: EventsLost, newest: int) -> bytes:
    """Return the frames that report that the stream cannot resume where the client was, and starts with new events."""
    oldest = None if error.oldest is None else str(error.oldest)
    data = {"oldest_id": oldest, "newest_id": str(newest), "message": error.message}
    return comment(f"{error.message}; the stream starts with new events") + event_frame(str(newest), "reset", data)


async def _filter(call: Call, query: EventQuery) -> EventFilter:
    named = {
        "model": query.model,
        "task_type": query.task_type,
        "run_id": await find_run_ids(call, query.run_id or []),
    }
    return EventFilter(
        organization_id=call.organization_id,
        types=None if query.event_types is None else _types(query.event_types),
        filters={name: values for name, values in named.items() if values},
        task_uid=None if query.task_id is None else await _task_uid(call, query.task_id),
    )


def _types(names: list[str]) -> frozenset[str]:
    try:
        return frozenset(check_event_types(names, as_pi=False))
    except BadRequest as error:
        raise BadRequest(error.message, code="invalid_query_params", param="event_types") from None


async def _task_uid(call: Call, task_id: str) -> str:
    """Return Ringback's id of a task that is named by it or by the provider's. Raises `NotFound`."""
    return str((await call.services.tracker.task(call.organization_id, task_id))["uid"])


def _position(given: str) -> int | None:
    """Return a `Last-Event-ID` as a sequence number, None if it is not one."""
    return int(given) if given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS else None


def _wants_stream(call: Call) -> bool:
    ranges = call.request.headers.get("accept", "").lower().split(",")
    return any(each.partition(";")[0].strip() == "text/event-stream" for each in ranges)
