"""The pages of the navigation, in its order. A page that is added here is linked to from the others."""

from dataclasses import dataclass
from functools import cache

from models import Scope


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """A page of the navigation: `g` and its letter lead there. Who has not the scope does not see it."""

    path: str
    title: str
    letter: str
    icon: str
    scope: Scope = Scope.READ


_ENTRIES = (NavigationEntry("/tasks", "Tasks", "t", "tasks"),)


def entries() -> tuple[NavigationEntry, ...]:
    """Return all of them."""
    return _ENTRIES


@cache
def is_served(path: str) -> bool:
    """Return whether there is a page at a path of the navigation: only then other pages link to it."""
    return any(entry.path == path for entry in _ENTRIES)
