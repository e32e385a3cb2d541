"""Claims of due tasks of one kind: the task worker claims both kinds at once."""

from datetime import datetime

from receiver.storage.transaction import FIRST_QUEUE, ClaimedTasks, DueTask, SendQueue, TaskClaim
from receiver.storage.writer import Writer


async def claim_polls(
    writer: Writer, now: datetime, lease_until: datetime, limit: int, after: int = 0
) -> list[DueTask]:
    """Claim due tasks that were sent, `limit` at most, beginning behind the organization `after`."""
    found: list[DueTask] = []
    while (wanted := limit - len(found)) > 0:
        claimed = await _claim(writer, TaskClaim(now, lease_until, polls=wanted, polled_after=after))
        found += claimed.tasks
        if not claimed.may_be_more_polls:
            break
        after = found[-1].state.organization_id
    return found


async def claim_unsent(
    writer: Writer, now: datetime, lease_until: datetime, limit: int, after: SendQueue = FIRST_QUEUE
) -> list[DueTask]:
    """Claim due tasks that wait to be sent, `limit` at most, beginning behind the queue `after`."""
    return (await _claim(writer, TaskClaim(now, lease_until, unsent=limit, sent_after=after))).tasks


async def _claim(writer: Writer, claim: TaskClaim) -> ClaimedTasks:
    """Claim; what is returned is read after the commit, which may have filled it."""
    return await writer.run(lambda tx: tx.claim_tasks(claim))
