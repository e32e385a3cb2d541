"""What the endpoints may use: one object that `receiver.app` builds at start."""

from msgspec import Struct

from receiver.api.auth import Authenticator
from receiver.api.change_limit import ChangeLimit
from receiver.api.idempotency import Idempotency
from receiver.api.limits import KeyLimits
from receiver.api.quotas import Quotas
from receiver.api.refusal_lines import RefusalLines
from receiver.domain.load_shares import LoadShares
from receiver.domain.sign_in import SignIn
from receiver.events.stream import Streams
from receiver.outbound.message import MessageBuilder
from receiver.outbound.replays import Replays
from receiver.outbound.sender import Sender
from receiver.outbound.subscriptions import Subscriptions
from receiver.providers import ForwardingProvider, Providers
from receiver.reporting.reporter import Reporter
from receiver.reporting.statistics import Statistics
from receiver.runs.service import Runs
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.key_rotation import KeyRotation
from receiver.storage.known_limits import KnownLimits
from receiver.tracking.bulk_actions import BulkActions
from receiver.tracking.explain import TaskExplainer
from receiver.tracking.provider_accounts import ProviderAccounts
from receiver.tracking.tracker import Tracker
from receiver.tracking.wait import TaskWaits


class Services(Struct, frozen=True, kw_only=True):
    """The parts of the service that the endpoints use."""

    settings: Settings
    database: Database
    tracker: Tracker
    task_explainer: TaskExplainer
    task_waits: TaskWaits
    runs: Runs
    streams: Streams
    subscriptions: Subscriptions
    replays: Replays
    bulk_actions: BulkActions
    reporter: Reporter
    statistics: Statistics
    messages: MessageBuilder
    test_sender: Sender
    authenticator: Authenticator
    key_limits: KeyLimits
    change_limit: ChangeLimit
    idempotency: Idempotency
    providers: Providers
    accounts: ProviderAccounts
    piapi: ForwardingProvider
    """What is passed on to PiAPI as it comes goes through it."""
    known_limits: KnownLimits
    quotas: Quotas
    load_shares: LoadShares
    refusals: RefusalLines
    key_rotation: KeyRotation
    sign_in: SignIn
