"""Libraries, without parts of theirs that a service never uses."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_UNUSED = ("rich", "httpx._main")
"""structlog imports rich, if it is there, to draw tracebacks in colour, which our records never have; httpx the command
line of its own. Both are two hundred modules."""


def import_libraries() -> None:
    """Import the libraries. To be called before any other import of theirs."""
    with _as_if_missing(_UNUSED):
        import httpx  # noqa: F401
        import structlog  # noqa: F401


@contextmanager
def _as_if_missing(names: tuple[str, ...]) -> Iterator[None]:
    """Refuse to import these modules while the context lasts, but for those that are imported already."""
    refused = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(refused))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in refused:
            del sys.modules[name]
