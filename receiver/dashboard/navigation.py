"""The pages of the navigation, in its order. A page that is added here is linked to from the others."""

from msgspec import Struct

from models import Scope


class NavigationEntry(Struct, frozen=True):
    """A page of the navigation: `g` and its letter lead there. Who has not the scope does not see it."""

    path: str
    title: str
    letter: str
    icon: str
    scope: Scope = Scope.READ


_ENTRIES = (
    NavigationEntry("/overview", "Overview", "o", "overview"),
    NavigationEntry("/tasks", "Tasks", "t", "tasks"),
    NavigationEntry("/runs", "Runs", "r", "runs"),
    NavigationEntry("/webhooks", "Webhooks", "w", "webhooks"),
    NavigationEntry("/deliveries", "Deliveries", "d", "deliveries"),
    NavigationEntry("/inbound", "Inbound", "i", "inbound"),
    NavigationEntry("/events", "Events", "e", "events"),
    NavigationEntry("/providers", "Providers", "p", "providers"),
    NavigationEntry("/keys", "Keys", "k", "keys", Scope.ADMIN),
    NavigationEntry("/organizations", "Organizations", "n", "organizations", Scope.ADMIN),
    NavigationEntry("/audit", "Audit", "a", "audit", Scope.ADMIN),
    NavigationEntry("/docs", "Docs", "h", "docs"),
)


def entries() -> tuple[NavigationEntry, ...]:
    """Return all of them."""
    return _ENTRIES
