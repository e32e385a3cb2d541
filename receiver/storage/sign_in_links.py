"""The one-time links to the dashboard: each is used once, by all processes together."""

from datetime import datetime

from sqlalchemy import delete, insert, select

from receiver.storage.tables import sign_in_links
from receiver.storage.transaction import Transaction


async def use_link(tx: Transaction, nonce: str, expires_at: datetime, now: datetime) -> bool:
    """Note that a link is used; return False, without a change, if it was used before.

    Links that have expired are forgotten. Of two processes that use one at the same time, the second one's insert is
    refused, the writer tries it again, and then it finds the row.
    """
    if await tx.execute(select(sign_in_links.c.nonce).where(sign_in_links.c.nonce == nonce)):
        return False
    await tx.execute(delete(sign_in_links).where(sign_in_links.c.expires_at < now))
    await tx.execute(insert(sign_in_links), [{"nonce": nonce, "expires_at": expires_at}])
    tx.leaves(lambda: select(sign_in_links.c.nonce).where(sign_in_links.c.nonce == nonce))
    return True
