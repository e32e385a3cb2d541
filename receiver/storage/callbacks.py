"""Finding and inserting the subscriptions of clients' own callbacks, in statements that both databases know."""

from collections.abc import Collection, Sequence

from sqlalchemy import insert, select

from receiver.storage.tables import subscriptions
from receiver.storage.transaction import Transaction, Values

CallbackKey = tuple[int, str]
"""An organization's row key, and the fingerprint of a client's own callback URL and secret
(`Subscription.fingerprint`)."""


async def find_callbacks(tx: Transaction, wanted: Collection[CallbackKey]) -> dict[CallbackKey, int]:
    """Return the row keys of those of these callbacks that have a row."""
    table = subscriptions.c
    found = await tx.execute(
        select(table.organization_id, table.fingerprint, table.id).where(
            table.organization_id.in_({organization_id for organization_id, _ in wanted}),
            table.fingerprint.in_({fingerprint for _, fingerprint in wanted}),
        )
    )
    return {(row.organization_id, row.fingerprint): row.id for row in found}


async def insert_callbacks(tx: Transaction, rows: Sequence[Values]) -> list[int]:
    """Insert rows of callbacks; return their row keys in order."""
    await tx.execute(insert(subscriptions), rows)
    keys = [(row["organization_id"], row["fingerprint"]) for row in rows]
    found = await tx.find_callbacks(keys)
    return [found[key] for key in keys]
