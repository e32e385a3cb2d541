"""Keys, organizations, the audit log, master keys and the report, as they are answered."""

from typing import Literal

from models import EventType, Scope
from receiver.api.description.forms import Answered, Free, Id, Time
from receiver.domain.gaps import GapKind


class KeyAnswer(Answered):
    """An API key, without the key itself."""

    object: Literal["key"]
    id: Id
    name: str
    scope: Scope
    hint: str
    """Its first characters."""
    rate_limit: float | None
    """Requests a second; null is the default."""
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    """At most a minute behind."""


class CreatedKeyAnswer(KeyAnswer):
    """A new API key."""

    key: str
    """The key itself: only this answer has it."""


class DeletedKeyAnswer(Answered):
    """A key that was revoked."""

    object: Literal["key"]
    id: Id
    deleted: Literal[True]


class LimitsAnswer(Answered):
    """What an organization may use; null is no limit."""

    webhooks: int | None
    streams: int | None
    """Event streams and waiting requests that are open."""
    running_replays: int | None
    open_tasks: int | None
    creates_per_second: float | None
    deliveries_in_flight: int | None
    deliveries_per_second: float | None
    stored_bytes: int | None
    idempotency_keys: int | None


class UsedAnswer(Answered):
    """What an organization uses of its limits."""

    webhooks: int
    streams: int
    running_replays: int
    open_tasks: int
    creates_per_second: float
    deliveries_in_flight: int
    deliveries_per_second: float
    stored_bytes: int
    idempotency_keys: int


class OrganizationAnswer(Answered):
    """An owner of tasks, runs, webhooks and keys."""

    object: Literal["organization"]
    id: Id
    name: str
    owns_provider_account: bool
    limits: LimitsAnswer
    """Those in force."""
    set_limits: dict[str, float | Literal["unlimited"]]
    """Those that were set."""
    created_at: Time


class OrganizationWithUseAnswer(OrganizationAnswer):
    """An organization, and what it uses."""

    used: UsedAnswer


class KeyInUseAnswer(Answered):
    """The key that asks."""

    id: Id | None
    scope: Scope


class OwnOrganizationAnswer(OrganizationWithUseAnswer):
    """Your own organization, what it uses, and your key."""

    key: KeyInUseAnswer


class DashboardLinkAnswer(Answered):
    """A link that signs in to the dashboard once."""

    object: Literal["dashboard_link"]
    path: str
    """To be added to the address of the service."""
    scope: Scope
    expires_at: Time


class CreatedOrganizationAnswer(OrganizationAnswer):
    """A new organization with its first admin key."""

    key: str
    """The key itself: only this answer has it."""
    key_id: Id


class AuditEntryAnswer(Answered):
    """Who changed what."""

    object: Literal["audit_entry"]
    id: Id
    action: str
    target: Id | None
    actor: str
    key_id: Id | None
    address: str | None
    request_id: str | None
    before: Free | None
    """The fields that differ, as they were. Secrets are only `set` or `changed`."""
    after: Free | None
    created_at: Time


class MasterKeyAnswer(Answered):
    """A master key, by its fingerprint."""

    fingerprint: str
    is_in_settings: bool
    is_newest: bool
    newest_since: Time | None


class TasksWithEarlierKeyAnswer(Answered):
    """The tasks under way that need an earlier master key, and until when at most."""

    count: int
    until: Time | None


class MasterKeysAnswer(Answered):
    """The master keys in use."""

    object: Literal["master_keys"]
    keys: list[MasterKeyAnswer]
    rows: int
    """How many rows have encrypted values."""
    tasks: TasksWithEarlierKeyAnswer


class MasterKeyUseAnswer(Answered):
    """How many values of a page are encrypted with a master key."""

    fingerprint: str
    is_newest: bool
    values: int


class MasterKeyRotationAnswer(Answered):
    """One page of a rotation."""

    object: Literal["master_key_rotation"]
    rows: int
    keys: list[MasterKeyUseAnswer]
    unreadable: int
    next_cursor: str | None
    """Where the next page begins; null after the last."""


class MadeAnswer(Answered):
    """How the tasks or runs that were created stand."""

    created: int
    ended: int
    open: int
    by_status: dict[str, int]


class ReportedEventsAnswer(Answered):
    """The events of the range."""

    count: int
    by_type: dict[EventType, int]


class AccountAnswer(Answered):
    """The events of subscriptions, each counted once."""

    events: int
    delivered: int
    waiting: int
    dead: int
    cancelled: int
    filtered: int
    unknown: int
    switched_off: int
    missing: int
    doubled: int
    earlier_settings: int


class WebhookAccountAnswer(AccountAnswer):
    """The events of one webhook."""

    webhook_id: Id
    endpoint_url: str
    state: Literal["active", "switched_off", "removed"]
    changed_at: Time
    adds_up: bool


class WebhookAccountsAnswer(Answered):
    """The webhooks of the organization; the first 100 are shown."""

    count: int
    shown: list[WebhookAccountAnswer]


class ReportedDeliveriesAnswer(Answered):
    """The deliveries of the range."""

    total: AccountAnswer
    webhooks: WebhookAccountsAnswer
    callbacks: AccountAnswer
    replays: dict[str, int]


class ListingAnswer(Answered):
    """Things that were found: how many, and the first 100 by their ids."""

    count: int
    shown: list[Free]


class GapListingAnswer(ListingAnswer):
    """One kind of gap."""

    kind: GapKind
    meaning: str


class GapsAnswer(Answered):
    """What is missing or contradicts itself."""

    count: int
    kinds: list[GapListingAnswer]


class ReportAnswer(Answered):
    """Whether everything that was created, ended and delivered adds up."""

    object: Literal["report"]
    since: Time
    until: Time
    is_cut: bool
    """`since` was before the retention, and is where that begins."""
    adds_up: bool
    tasks: MadeAnswer
    runs: MadeAnswer
    events: ReportedEventsAnswer
    deliveries: ReportedDeliveriesAnswer
    gaps: GapsAnswer
    dead: ListingAnswer
    overdue_tasks: ListingAnswer
    overdue_deliveries: ListingAnswer
