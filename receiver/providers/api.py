"""What an adapter has to know of one provider's API: which requests to make, and what the answers mean.

An `API` is pure: it makes no call and keeps nothing. `receiver.providers.adapter.Adapter` makes the calls for it, and
does what is the same for every provider: the rate limit, the account's key, what a lost answer means, the second call
for a result, secrets that are echoed, and addresses that lead elsewhere. `BaseAPI` has the usual answers to what most
APIs do alike; an API derives from it and says what is its own.

Which method reads what, in the life of a task:

1. `create` makes the request of the create call. It raises `CannotAsk` for what this provider has no way to ask, as
   `look`, `find` and `cancel` may for a task of which too little is known.
   `read_created` reads a 2xx, and raises `MalformedUpdate` if that is no task.
2. `parse_webhook` reads the JSON of a webhook, after `verify` has found its signature good.
3. `look` makes the request that asks for a task, and `read_look` reads its answer: an update, or the request for its
   result where that is in a second call, which `read_result` reads.
4. `page` and `read_page` read the provider's list, one page after the other; `find` and `read_found` look for the task
   of a create call by our reference.
5. `cancel` makes the request that cancels a task.

`judge` says what an answer means where its HTTP status does not say it.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from msgspec import Struct, field

from receiver.domain.updates import ProviderUpdate
from receiver.hidden_fields import HidesFields
from receiver.providers.base import NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.capabilities import Capabilities
from receiver.providers.reasons import message_of
from receiver.providers.webhook_outcomes import Headers, Signature, WebhookOutcome

LONGEST_MESSAGE = 500

Credentials = Mapping[str, str]
"""An account's credentials, by the names that the API gives them."""


class FormPart(Struct, frozen=True):
    """A part of a form: a text, or a file if it has a `file_name`."""

    name: str
    content: bytes
    file_name: str | None = None
    content_type: str = ""


class Request(HidesFields, Struct, frozen=True, kw_only=True):
    """A request to a provider. `url` is a path below the account's base URL, or a whole URL on one of its hosts.

    `body` is sent as JSON, None for a request without one; `parts` are sent as `multipart/form-data` instead. A success
    of one of `file_types`, such as `image/*`, is a file, whose content is not read.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers"})

    method: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[FormPart, ...] | None = None
    file_types: tuple[str, ...] = ()


class ListPage(Struct, frozen=True):
    """A page of a provider's list: its tasks, newest first, and the request for the next page, None after the last."""

    tasks: list[dict[str, Any]]
    following: Request | None


class Window(Struct, frozen=True):
    """Which tasks to list: those of a model that were made from `since` to `until`, None for until now."""

    model: str
    since: datetime
    until: datetime | None = None


class CannotAsk(ValueError):
    """What a client wants cannot be asked of this provider. The message says what to change."""


class Judgement(StrEnum):
    """What an answer means."""

    BY_STATUS = "by status"
    """What its HTTP status says."""
    REFUSED = "refused"
    """The same request would be refused again."""
    UNAUTHORIZED = "unauthorized"
    """The account's key is refused."""
    NO_MONEY = "no money"
    """The account has no credit: refused until somebody pays."""
    LATER = "later"
    """Nothing was made or done, and the same request may succeed later."""
    MISSING = "missing"
    """The provider does not know the task."""


class API(Protocol):
    """One provider's API. The module's docstring says what reads what."""

    name: str
    base_url: str
    """Where the API is, if an account names no other place; "" if every account has to name one."""
    hosts: frozenset[str]
    """Hosts besides that of the base URL that belong to the provider, to which the key may be sent."""
    capabilities: Capabilities
    credential_names: tuple[str, ...]
    """What an account needs to be used."""
    optional_credentials: tuple[str, ...]
    """What it may have besides, such as the secret of webhooks that a person has registered."""

    def auth(self, credentials: Credentials, now: float) -> Mapping[str, str]:
        """Return the headers that authenticate a call; `now` is the time in unix seconds."""
        ...

    def create(self, task: NewTask) -> Request:
        """Return the create call of a task. Raises `CannotAsk`."""
        ...

    def read_created(self, answer: CallResponse, task: NewTask) -> ProviderUpdate:
        """Return the update that a 2xx to a create call is. Raises `MalformedUpdate`."""
        ...

    def look(self, task: ProviderTask) -> Request:
        """Return the request that asks for a task."""
        ...

    def read_look(self, answer: CallResponse, task: ProviderTask) -> ProviderUpdate | Request:
        """Return the update that a 2xx to `look` is, or the request for its result. Raises `MalformedUpdate`."""
        ...

    def read_result(self, answer: CallResponse, task: ProviderTask, look: CallResponse) -> ProviderUpdate:
        """Return the update of a task whose result is in a second call. Raises `MalformedUpdate`.

        The answer may have any status for which `is_result` holds.
        """
        ...

    def is_result(self, answer: CallResponse) -> bool:
        """Return whether the answer to the request for a result is one, be it a failure; else it is asked for again."""
        ...

    def cancel(self, task: ProviderTask) -> Request:
        """Return the request that cancels a task. It is called only where `capabilities.cancels` allows it."""
        ...

    def is_cancelled(self, answer: CallResponse) -> bool:
        """Return whether a 2xx to `cancel` says that the task is cancelled now; else it says that it may be later."""
        ...

    def page(self, window: Window) -> Request:
        """Return the request for the first page of the provider's list. Called only if `capabilities.lists`."""
        ...

    def read_page(self, answer: CallResponse, window: Window) -> ListPage:
        """Return the page that a 2xx is. Raises `MalformedUpdate`."""
        ...

    def parse_task(self, task: dict[str, Any]) -> ProviderUpdate:
        """Return the update that an item of the list is. Raises `MalformedUpdate`."""
        ...

    def find(self, reference: str, model: str, task_type: str) -> Request | None:
        """Return the request that asks for a task by our reference; None if tasks of this type cannot be asked for so.

        Called only if `capabilities.finds`.
        """
        ...

    def read_found(self, answer: CallResponse, reference: str) -> ProviderUpdate | Request | None:
        """Return the task that a 2xx to `find` has, the request for the next page, or None: it does not have it.

        Raises `MalformedUpdate`.
        """
        ...

    def account(self) -> Request:
        """Return a request that costs nothing and shows whether the key is accepted."""
        ...

    def shows_good_key(self, answer: CallResponse) -> bool:
        """Return whether an answer to `account` that is no success shows all the same that the key is accepted."""
        ...

    def judge(self, answer: CallResponse) -> Judgement:
        """Return what an answer means."""
        ...

    def message(self, answer: CallResponse) -> str:
        """Return the provider's words, or some that are made of the status; bounded."""
        ...

    def signing_keys(self) -> Request | None:
        """Return the request for the keys by which webhooks are verified; None if an account has them itself."""
        ...

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Check the signature of a webhook. `keys` is the JSON that `signing_keys` was answered with, else None."""
        ...

    def parse_webhook(self, value: Any) -> WebhookOutcome:
        """Return what the JSON of a webhook comes to. Raises `MalformedUpdate`."""
        ...


class BaseAPI:
    """What most APIs do alike: a Bearer key, refusals by their status, no list, no second call, no signature."""

    hosts: frozenset[str] = frozenset()
    credential_names: tuple[str, ...] = ("api_key",)
    optional_credentials: tuple[str, ...] = ()

    def auth(self, credentials: Credentials, now: float) -> Mapping[str, str]:
        """Return the key as a Bearer token."""
        return {"authorization": f"Bearer {credentials['api_key']}"}

    def read_result(self, answer: CallResponse, task: ProviderTask, look: CallResponse) -> ProviderUpdate:
        """Never called: there is no second call."""
        raise NotImplementedError

    def is_result(self, answer: CallResponse) -> bool:
        """Return whether it is a 2xx."""
        return 200 <= answer.status < 300

    def cancel(self, task: ProviderTask) -> Request:
        """Never called: nothing can be cancelled."""
        raise NotImplementedError

    def is_cancelled(self, answer: CallResponse) -> bool:
        """Return True: what is accepted is done."""
        return True

    def page(self, window: Window) -> Request:
        """Never called: there is no list."""
        raise NotImplementedError

    def read_page(self, answer: CallResponse, window: Window) -> ListPage:
        """Never called: there is no list."""
        raise NotImplementedError

    def parse_task(self, task: dict[str, Any]) -> ProviderUpdate:
        """Never called: there is no list."""
        raise NotImplementedError

    def find(self, reference: str, model: str, task_type: str) -> Request | None:
        """Never called: nothing is found by a reference of ours."""
        raise NotImplementedError

    def read_found(self, answer: CallResponse, reference: str) -> ProviderUpdate | Request | None:
        """Never called: nothing is found by a reference of ours."""
        raise NotImplementedError

    def shows_good_key(self, answer: CallResponse) -> bool:
        """Return False: only a success shows it."""
        return False

    def judge(self, answer: CallResponse) -> Judgement:
        """Return what its HTTP status says."""
        return Judgement.BY_STATUS

    def message(self, answer: CallResponse) -> str:
        """Return the words of the error, wherever they stand."""
        words = message_of(answer.body) or answer.text or f"HTTP {answer.status} from the provider"
        return words[:LONGEST_MESSAGE]

    def signing_keys(self) -> Request | None:
        """Return None: no keys are fetched."""
        return None

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Return `VALID`: nothing is signed, and the token in the path is the proof."""
        return Signature.VALID
