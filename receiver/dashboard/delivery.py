"""The page of one delivery: its request, what each attempt was answered, what happens next, and sending it again."""

import shlex
from datetime import datetime, timedelta
from typing import Any

import orjson
from msgspec import Struct
from starlette.responses import Response

from models import DeliveryStatus
from receiver.api import deliveries as api
from receiver.api import explanations
from receiver.dashboard.documents import document
from receiver.dashboard.explained import shown_explanation
from receiver.dashboard.timeline import WIDTH, Bar, ShownObject
from receiver.dashboard.times import parse
from receiver.dashboard.visit import Visit
from receiver.large_bodies import read_apart
from receiver.printable import printable_json

_MOST_ATTEMPTS = 60
_LEAST = 4
"""The width of an attempt in the picture, in its units: most take a few milliseconds of hours."""
_LONGEST_CURL = 8 * 1024
_COPIED_HEADERS = ("content-type", "webhook-id", "webhook-timestamp", "x-pi-event")
"""The headers of a request that no secret is in."""


class Attempt(Struct, frozen=True):
    """One attempt, and the seconds since what was before it: the delivery's creation, or the end of an attempt."""

    made: ShownObject
    wait: float
    kind: str


async def show_delivery(visit: Visit) -> Response:
    """Show a delivery."""
    delivery = await visit.ask(api.get_delivery, delivery_id=visit.path("delivery_id"))
    uid = str(delivery["id"])
    explanation = await visit.ask(explanations.explain_delivery, delivery_id=uid)
    request = delivery["request"] or {}
    attempts = _attempts(delivery)
    start, end = _span(delivery, visit.now)
    return visit.page(
        "delivery.html",
        delivery=delivery,
        explained=shown_explanation(explanation, visit.now),
        attempts_left=explanation["facts"]["attempts_left"],
        request=request,
        body=await read_apart(lambda: document(request["body"])) if "body" in request else None,
        attempts=attempts[-_MOST_ATTEMPTS:],
        left_out=max(0, len(attempts) - _MOST_ATTEMPTS),
        bars=[_bar(each, start, end) for each in attempts[-_MOST_ATTEMPTS:]],
        start=start,
        end=end,
        is_pending=delivery["status"] == DeliveryStatus.PENDING,
        curl=await read_apart(lambda: _curl(visit, delivery)),
        live=visit.url("/live", {"task_id": delivery["task_id"]} if delivery["task_id"] else ()),
    )


def _attempts(delivery: ShownObject) -> list[Attempt]:
    found, before = [], parse(delivery["created_at"])
    last = len(delivery["attempts"])
    for number, each in enumerate(delivery["attempts"], 1):
        begun = parse(each["started_at"])
        is_accepted = number == last and delivery["status"] == DeliveryStatus.DELIVERED
        is_good = each["error"] is None and 200 <= (each["status_code"] or 0) < 300
        kind = "delivered" if is_accepted or is_good else "failed"
        found.append(Attempt(each, max((begun - before).total_seconds(), 0.0), kind))
        before = _end_of(each)
    return found


def _end_of(attempt: ShownObject) -> datetime:
    return parse(attempt["started_at"]) + timedelta(milliseconds=attempt["duration_ms"])


def _span(delivery: ShownObject, now: datetime) -> tuple[datetime, datetime]:
    """Return the first and the last moment of the picture: a next attempt is in it too."""
    start = parse(delivery["created_at"])
    times = [start + timedelta(milliseconds=1), *map(_end_of, delivery["attempts"])]
    if delivery["settled_at"]:
        times.append(parse(delivery["settled_at"]))
    elif delivery["status"] == DeliveryStatus.PENDING:
        times.append(now)
    return start, max(times)


def _bar(attempt: Attempt, start: datetime, end: datetime) -> Bar:
    begun, length = parse(attempt.made["started_at"]), (end - start).total_seconds()
    x = min(max((begun - start).total_seconds() / length, 0.0) * WIDTH, WIDTH - _LEAST)
    width = attempt.made["duration_ms"] / 1000 / length * WIDTH
    answer = attempt.made["status_code"] or attempt.made["error"] or "no answer"
    title = f"attempt {attempt.made['attempt']}: {answer}"
    return Bar(round(x, 2), round(min(max(width, _LEAST), WIDTH - x), 2), attempt.kind, title)


def _curl(visit: Visit, delivery: ShownObject) -> list[tuple[str, str]]:
    """Return commands, each with what it does: text that a shell takes as it is."""
    one = f"{str(visit.request.base_url).rstrip('/')}/api/v1/deliveries/{delivery['id']}"
    key = '-H "Authorization: Bearer $RINGBACK_API_KEY"'
    found = [
        ("Read this delivery", f"curl {key} \\\n  {shlex.quote(one)}"),
        ("Send it again", f"curl -X POST {key} \\\n  {shlex.quote(f'{one}/retry')}"),
    ]
    request: dict[str, Any] = delivery["request"] or {}
    if "body" in request:
        found.append(("Send the same request yourself, without its signature", _unsigned(request)))
    return found


def _unsigned(request: ShownObject) -> str:
    text = orjson.dumps(request["body"]).decode()
    data = shlex.quote(printable_json(text)) if len(text) <= _LONGEST_CURL else "@body.json"
    kept = [(name, value) for name, value in request["headers"].items() if name.lower() in _COPIED_HEADERS]
    headers = "".join(f"  -H {shlex.quote(f'{name}: {value}')} \\\n" for name, value in kept)
    return f"curl {shlex.quote(request['url'])} \\\n{headers}  -d {data}"
