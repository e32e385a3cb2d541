"""How the API reads an id: 400 for what is not a UUID; for an id that does not exist, the lookup answers 404.

Task ids are the exception: a task is also found by the provider's id, which may be any text, so all that is not the id
of a task is 404.
"""

from receiver.domain.ids import is_id
from receiver.errors import BadRequest


def read_id(text: str, *, param: str, code: str | None = None) -> str:
    """Return an id in the form that it is stored in: lower case.

    Raises `BadRequest` for what is not a UUID, with the code `invalid_<param>` unless `code` is given.
    """
    uid = text.lower()
    if not is_id(uid):
        raise BadRequest(f"{text[:80]!r} is not a UUID", code=code or f"invalid_{param}", param=param)
    return uid
