"""What the endpoints may use: one object that `receiver.app` builds at start."""

from collections.abc import Mapping
from dataclasses import dataclass

from receiver.api.auth import Authenticator
from receiver.api.idempotency import Idempotency
from receiver.api.limits import KeyLimits
from receiver.events.stream import Streams
from receiver.outbound.ping import Pinger
from receiver.outbound.replays import Replays
from receiver.outbound.request_preview import RequestPreviews
from receiver.outbound.subscriptions import Subscriptions
from receiver.providers import Provider
from receiver.runs.service import Runs
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.tracking.tracker import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of the service that the endpoints use."""

    settings: Settings
    database: Database
    tracker: Tracker
    runs: Runs
    streams: Streams
    subscriptions: Subscriptions
    pinger: Pinger
    replays: Replays
    request_previews: RequestPreviews
    authenticator: Authenticator
    key_limits: KeyLimits
    idempotency: Idempotency
    providers: Mapping[str, Provider]
