"""How the API reads an id: 400 for what is not a UUID; for an id that does not exist, the lookup answers 404.

Task ids are the exception: a task is also found by the provider's id, which may be any text, so all that is not the id
of a task is 404.
"""

from typing import Any

from receiver.domain.ids import is_id
from receiver.errors import BadRequest, NotFound
from receiver.storage.database import Database, Query


def read_id(text: str, *, param: str, code: str | None = None) -> str:
    """Return an id in the form that it is stored in: lower case.

    Raises `BadRequest` for what is not a UUID, with the code `invalid_<param>` unless `code` is given.
    """
    uid = text.lower()
    if not is_id(uid):
        raise BadRequest(f"{text[:80]!r} is not a UUID", code=code or f"invalid_{param}", param=param)
    return uid


async def find_row(database: Database, query: Query, thing: str) -> dict[str, Any]:
    """Return the row of a `thing` that is queried by its id.

    Raises `NotFound` with the code `<thing>_not_found` and the param `<thing>_id`.
    """
    rows = await database.read(query)
    if not rows:
        raise NotFound(f"there is no {thing} with this id", code=f"{thing}_not_found", param=f"{thing}_id")
    return rows[0]
