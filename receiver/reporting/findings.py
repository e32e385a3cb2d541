"""What a report has counted and found. Lists are cut; their counts are not."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from msgspec import Struct, field

from receiver.domain.gaps import GapKind
from receiver.storage.report.subscriptions import ReportedWebhook

MOST_LISTED = 100
"""How many gaps, dead deliveries and so on are listed by id, and how many webhooks."""


class Listing(Struct):
    """Things found: how many, and the first of them, each as the ids that name it."""

    count: int = 0
    shown: list[dict[str, Any]] = field(default_factory=list)

    @property
    def room(self) -> int:
        """How many more can be listed."""
        return MOST_LISTED - len(self.shown)

    def add(self, count: int, items: Iterable[Mapping[str, Any]]) -> None:
        """Count `count` more, and list as many of `items` as there is room for."""
        self.count += count
        # A row may have names of a kind of text that cannot be written as JSON.
        self.shown += [{str(name): value for name, value in item.items()} for item in islice(items, self.room)]


class Made(Struct):
    """How the tasks or runs that were created stand. Those with a gap count as neither ended nor open."""

    created: int = 0
    ended: int = 0
    open: int = 0
    by_status: Counter[str] = field(default_factory=Counter)


class Account(Struct):
    """The events of a subscription, each counted once in one of the fields after `events`.

    `events` is counted from the log alone, the others up to `missing` from the deliveries and from the events that have
    none: the two agree, or the report itself is wrong.
    """

    events: int = 0
    delivered: int = 0
    waiting: int = 0
    dead: int = 0
    cancelled: int = 0
    filtered: int = 0
    unknown: int = 0
    """Without a delivery, and from before the last change of the subscription, whose settings then are not known."""
    switched_off: int = 0
    """Without a delivery, because the subscription was switched off."""
    missing: int = 0
    doubled: int = 0
    """Deliveries beyond the first of an event, which alone is counted in the fields before."""
    earlier_settings: int = 0
    """Deliveries of events that the subscription would not receive with its present event types; apart from the
    others."""

    @property
    def without_delivery(self) -> int:
        """How many of the events have no delivery, calculated from the others."""
        return self.events - self.delivered - self.waiting - self.dead - self.cancelled

    @property
    def explained(self) -> int:
        """How many of the events without a delivery were looked at and classed."""
        return self.filtered + self.unknown + self.switched_off + self.missing

    @property
    def adds_up(self) -> bool:
        """Whether every event has been delivered, waits, was given up, or was not to be delivered."""
        return self.without_delivery == self.explained and not self.missing and not self.doubled

    def add(self, other: "Account") -> None:
        """Add the counts of another."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Findings(Struct):
    """All that a report says of the range from `since` to `until`.

    `is_cut`: a range from before the retention was asked for, and `since` is where the retention begins.
    """

    since: datetime
    until: datetime
    is_cut: bool = False
    tasks: Made = field(default_factory=Made)
    runs: Made = field(default_factory=Made)
    events: Counter[str] = field(default_factory=Counter)
    webhooks: list[tuple[ReportedWebhook, Account]] = field(default_factory=list)
    """The registered webhooks, oldest first."""
    callbacks: Account = field(default_factory=Account)
    replays: Counter[str] = field(default_factory=Counter)
    """The deliveries of replays by how they stand, apart from all others."""
    gaps: dict[GapKind, Listing] = field(default_factory=dict)
    dead: Listing = field(default_factory=Listing)
    overdue_tasks: Listing = field(default_factory=Listing)
    overdue_deliveries: Listing = field(default_factory=Listing)

    def gap(self, kind: GapKind) -> Listing:
        """Return the listing of one kind of gap."""
        return self.gaps.setdefault(kind, Listing())

    @property
    def deliveries(self) -> Account:
        """The sum over all webhooks and callbacks."""
        total = Account()
        for account in (*(account for _, account in self.webhooks), self.callbacks):
            total.add(account)
        return total

    @property
    def adds_up(self) -> bool:
        """Whether nothing is missing: there is no gap, and every sum agrees."""
        accounts = (*(account for _, account in self.webhooks), self.callbacks)
        made = (self.tasks, self.runs)
        return (
            not any(listing.count for listing in self.gaps.values())
            and all(each.created == each.ended + each.open for each in made)
            and all(account.adds_up for account in accounts)
        )
