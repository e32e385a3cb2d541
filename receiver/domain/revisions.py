"""Texts by which the snapshots of one attempt of a task compare: the greater one is newer, or has more of a result.

A task's row keeps the revision of its snapshot, so that an update can be compared without reading the stored content.

| the row has | its revision |
|---|---|
| no snapshot | empty |
| the snapshot of a running task | `3.040.000002.000001.<digest>`, and a `+` at the end if its output has a result |
| the end of a failed or cancelled task as the provider reported it | `9.2.<digest>` |
| a completed task without a result | `9.0.` |
| a completed task whose result is that of a running snapshot | `9.1.<that snapshot's revision>` |
| a completed task with its result | `9.2.<digest>` |
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

from models import TaskStatus
from receiver.domain.outputs import has_output, leaf_count
from receiver.domain.updates import ProviderUpdate

RANK: Mapping[str, int] = {
    TaskStatus.QUEUED: 0,
    TaskStatus.STAGED: 1,
    TaskStatus.PENDING: 2,
    TaskStatus.PROCESSING: 3,
}
"""Which of two states that are not terminal is further on. Within an attempt a task never moves to a lower rank."""
WITHOUT_RESULT = "9.0."
_EARLIER_RESULT = "9.1."
_FINAL = "9.2."
_END = "9."
_HAS_RESULT = "+"


def revision(
    status: TaskStatus | None,
    progress: int,
    logs: list[Any] | None,
    output: dict[str, Any] | None,
    error: dict[str, Any] | None = None,
) -> str:
    """Return a text by which snapshots of a running task compare: the greater one is the newer one.

    An update has no sequence number, so the order is derived from what grows while a task runs: the rank of the state,
    then progress, then the number of log entries, then the number of values in the output and the error. The numbers
    are padded, so that the order of the texts is the order of the numbers. A status word that Ringback does not know
    (None) ranks as `processing`: what it says is kept until a later snapshot has more.

    Two different snapshots may agree in all of these. The digest at the end does not tell which is newer. It makes the
    order total, so that the same one of the two wins whichever arrives first. A task without any snapshot has the
    revision "", which is less than any other.
    """
    rank = RANK[status or TaskStatus.PROCESSING]
    content = [logs, output] if error is None else [logs, output, error]
    count = leaf_count(output) + leaf_count(error)
    result = _HAS_RESULT if has_output(output) else ""
    return f"{rank}.{progress:03d}.{len(logs or ()):06d}.{count:06d}.{_digest(content)}{result}"


def revision_of(update: ProviderUpdate) -> str:
    """Return the revision of an update that is not terminal."""
    return revision(update.status, update.progress, update.logs, update.output, update.error)


def final_revision(update: ProviderUpdate) -> str:
    """Return the revision of a terminal update of the provider's: two of them agree if output and error agree."""
    if update.status == TaskStatus.COMPLETED:
        return f"{_FINAL}{_digest([update.output])}" if has_output(update.output) else WITHOUT_RESULT
    return f"{_FINAL}{_digest([update.output, update.error])}"


def completed_by(earlier: str) -> str:
    """Return the revision of a completed task whose result is that of a running snapshot with this revision."""
    return f"{_EARLIER_RESULT}{earlier}"


def has_result(revision: str) -> bool:
    """Return whether this revision of a running snapshot is one whose output has a result."""
    return revision.endswith(_HAS_RESULT) and not is_end(revision)


def is_end(revision: str) -> bool:
    """Return whether this revision is that of an end that the provider reported."""
    return revision.startswith(_END)


def is_final(revision: str) -> bool:
    """Return whether this revision is that of a provider's end whose content no other update replaces."""
    return revision.startswith(_FINAL)


def _digest(content: list[Any]) -> str:
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=6).hexdigest()
