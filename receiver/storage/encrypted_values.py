"""Whether the present master keys decrypt what a database holds encrypted."""

from collections.abc import Callable

from sqlalchemy import Connection, select

from receiver.domain.keyring import MasterKeyMissing
from receiver.storage.tables import api_keys, subscriptions

_COLUMNS = (subscriptions.c.secret, subscriptions.c.headers, api_keys.c.sealed)
_MOST = 1000
"""Values of each column that are tried: of the newest and of the oldest rows, for keys are replaced in that order."""


def undecryptable(connection: Connection, decrypt: Callable[[str], str]) -> tuple[int, int]:
    """Return how many values no master key decrypts, and how many were tried."""
    tokens: set[str] = set()
    for column in _COLUMNS:
        key = column.table.c.id
        for order in (key.asc(), key.desc()):
            query = select(column).where(column.is_not(None)).order_by(order).limit(_MOST)
            tokens.update(connection.execute(query).scalars())
    return sum(not _decrypts(decrypt, token) for token in tokens), len(tokens)


def _decrypts(decrypt: Callable[[str], str], token: str) -> bool:
    try:
        decrypt(token)
    except MasterKeyMissing:
        return False
    return True
