"""The pages of what came in: webhooks that were authentic and could not be applied, and how many came in at all."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from models import ReceiptReason
from receiver.api import receipts, stats, tasks
from receiver.dashboard.answers import attachment
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.documents import text_document
from receiver.dashboard.list_query import ListQuery, canonical
from receiver.dashboard.visit import Visit
from receiver.large_bodies import read_by_size

PATH = "/inbound"
EVERY_SECONDS = 5
"""How often an open page looks for receipts: they make no event."""
MEANINGS = {
    ReceiptReason.MALFORMED: "Its body could not be read as a task. It was answered with 400, so the provider may send "
    "it again, and the task, if it names one, was polled at once.",
    ReceiptReason.CONFLICTING: "It contradicts how the task ended, or names a task of the provider's that is another "
    "task's. The first end stands, and nothing was changed.",
    ReceiptReason.SUPERSEDED: "It is about an earlier attempt, which another one has followed. It changed nothing; its "
    "output, if it has one, may have been paid for.",
}


async def show_inbound(visit: Visit) -> Response:
    """Show a page of receipts, and the counts."""
    pairs = canonical(visit.query)
    if pairs != visit.query:
        return visit.redirect(PATH, pairs)
    query = ListQuery(PATH, pairs, visit.url)
    found, fault = await visit.ask_page(receipts.list_receipts, pairs)
    return visit.page(
        "inbound.html",
        status=fault.status if fault else 200,
        query=query,
        receipts=found["data"],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        fault=fault,
        reasons=list(ReceiptReason),
        chips=[pair for pair in pairs if pair[0] not in ("reason", "cursor", "limit")],
        ends=_ends((await visit.ask(stats.get_stats))["tasks"]),
        counts=_counts(await visit.ask(receipts.get_inbound)),
        every=EVERY_SECONDS,
        live=visit.url("/live", {"event_types": "task.*"}),
    )


async def show_receipt(visit: Visit) -> Response:
    """Show a receipt with its body, and its task as it is now."""
    receipt = await visit.ask(receipts.get_receipt, receipt_id=visit.path("receipt_id"))
    text = str(receipt["body"])
    return visit.page(
        "receipt.html",
        receipt=receipt,
        task=await _task(visit, receipt["task_id"]),
        meaning=MEANINGS[ReceiptReason(receipt["reason"])],
        body=await read_by_size(len(text), lambda: text_document(text)),
        live=visit.url("/live", {"task_id": receipt["task_id"]} if receipt["task_id"] else {"event_types": "task.*"}),
    )


async def download(visit: Visit) -> Response:
    """Return the body of a receipt as a file."""
    receipt = await visit.ask(receipts.get_receipt, receipt_id=visit.path("receipt_id"))
    content = str(receipt["body"]).encode("utf-8", "replace")
    return attachment(content, f"{receipt['id']}.txt", "application/octet-stream")


async def _task(visit: Visit, uid: str | None) -> Any:
    """Return the task of a receipt; None if it is not known, or was purged."""
    if uid is None:
        return None
    try:
        return await visit.ask(tasks.get_task, task_id=uid)
    except ApiRefusal as refused:
        if refused.status != 404:
            raise
        return None


def _ends(found: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return what brought the ends of tasks, each with how many."""
    named = (("by webhook", "by_webhook"), ("by poll", "by_poll"), ("otherwise", "by_other"))
    return [(title, found[name]) for title, name in named]


def _counts(found: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the counters of the service in the words of the page; none where they are not told."""
    if found["updates"] is None:
        return []

    def total(*names: str) -> int:
        return sum(provider[name] for provider in found["providers"] for name in names)

    updates = found["updates"]
    rare = [
        ("only asked to look", total("thin")),
        ("answered a challenge", total("answered")),
        ("of no task here", total("unknown_task")),
        ("too large", total("too_large")),
        ("packed in an unknown way", total("unknown_encoding")),
        ("not stored, asked for again", total("unavailable")),
    ]
    return [
        ("applied", updates["applied"]),
        ("nothing new", updates["unchanged"]),
        ("not applied", updates["receipts"] + total("malformed")),
        ("wrong secret", total("wrong_secret")),
        *(each for each in rare if each[1]),
    ]
