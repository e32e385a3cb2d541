"""A provider behind the protocol, for any API that `receiver.providers.api` describes, with one account of it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from secrets import token_hex
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import orjson
from msgspec.structs import replace

from models import TERMINAL, TaskStatus
from receiver.clock import wall_now
from receiver.domain.redaction import may_hold, redact_text, redact_value
from receiver.domain.updates import ProviderUpdate, Source
from receiver.large_bodies import read_by_size
from receiver.providers.accounts import ProviderAccount
from receiver.providers.api import API, CannotAsk, Judgement, Request, Window
from receiver.providers.base import (
    AccountCheck,
    CallerKey,
    CancelOutcome,
    ConfirmSend,
    FetchOutcome,
    Found,
    History,
    MalformedUpdate,
    Missing,
    NewTask,
    NoAnswer,
    ProviderTask,
    Refused,
    SubmitOutcome,
)
from receiver.providers.calls import CallResponse, HTTPCalls, NotSent
from receiver.providers.capabilities import CancelScope
from receiver.providers.lenient_json import read_json
from receiver.providers.measuring import count_call, measured
from receiver.providers.multipart import written
from receiver.providers.outcomes import (
    MadeCall,
    cancel_outcome,
    envelope,
    fetch_outcome,
    found_outcome,
    judged,
    result_outcome,
    submit_outcome,
    unauthorized,
)
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.reports import told_wait
from receiver.providers.statuses import TEMPORARY
from receiver.providers.webhook_outcomes import Headers, Signature, WebhookOutcome

_LONGEST_PLAIN = 64 * 1024
_LONGEST_TEXT = 500
_MOST_PAGES = 10_000
_MOST_FOUND_PAGES = 20
"""Pages in which a create whose answer was lost is looked for: it is among the newest."""
_MOST_WAITS = 20
"""A page is asked for again this many times because the provider asked to wait."""
_KEYS_SECONDS = 86_400.0
"""How long fetched signing keys are used."""
_KEYS_AGAIN_SECONDS = 60.0
"""They are fetched again after a signature that none of them made, but no sooner than this: keys are rotated."""
_KEYS_RETRY_SECONDS = 5.0
"""They are not fetched again for this long after they could not be had."""
_DOTS = frozenset({".", ".."})
_UNBEGUN = frozenset({TaskStatus.QUEUED, TaskStatus.STAGED, TaskStatus.PENDING})

Keep = Callable[[dict[str, Any]], bool]


class Adapter:
    """One account at a provider. It owns its connections: call `aclose` when done.

    `timeout` (seconds) bounds each phase of a call, as in `receiver.providers.calls`.
    """

    def __init__(self, api: API, account: ProviderAccount, *, timeout: float, rate_limiter: RateLimiter) -> None:
        self.name = api.name
        self.capabilities = api.capabilities
        self._api = api
        # A line break at the end, as a file or a secret store may add it, makes a header that cannot be sent.
        credentials = {name: value.strip() for name, value in account.credentials.items()}
        self._account = account = replace(account, credentials=credentials)
        self._base_url = (account.base_url or api.base_url).rstrip("/")
        self._fault = _credential_fault(api, account)
        self._refusal: str | None = None
        self._secrets = tuple(filter(None, account.credentials.values()))
        self._calls = _Calls(
            base_url=self._base_url,
            headers={},
            secrets=self._secrets,
            timeout=timeout,
            rate_limiter=rate_limiter,
            concurrency=account.concurrency,
        )
        self._keys: Any = None
        self._keys_at = -_KEYS_SECONDS
        self._keys_not_before = 0.0
        self._fetching_keys = asyncio.Lock()

    async def submit(
        self, task: NewTask, *, caller: CallerKey | None = None, confirm: ConfirmSend | None = None
    ) -> SubmitOutcome:
        """Create the task, unless `confirm` returns False: then the outcome is `NotMade`."""
        return await measured(self.name, "submit", self._submit(task, caller, confirm))

    async def fetch(
        self, task: ProviderTask, *, attempt: int | None, hidden: str = "", caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Ask for one task, and for its result where that is in a second call; the update carries `attempt`."""
        return _with_attempt(await measured(self.name, "fetch", self._fetch(task, hidden, caller)), attempt)

    async def cancel(self, task: ProviderTask, *, caller: CallerKey | None = None) -> CancelOutcome:
        """Ask the provider to cancel one task.

        Where it cancels only what it has not begun, or erases what has ended by the same call, the task is looked at
        first.
        """
        return await measured(self.name, "cancel", self._cancel(task, caller))

    async def find(
        self, reference: str, *, model: str, task_type: str, attempt: int | None, caller: CallerKey | None = None
    ) -> FetchOutcome:
        """Ask for the task that was created with this reference of ours."""
        found = await measured(self.name, "find", self._find(reference, model, task_type, caller))
        return _with_attempt(found, attempt)

    async def history(
        self,
        *,
        model: str,
        since: datetime,
        until: datetime | None = None,
        keep: Keep | None = None,
        caller: CallerKey | None = None,
    ) -> History:
        """Return the provider's own list of this time, read to its end; one that has no list is never complete."""
        began = monotonic()
        if self._fault or not self.capabilities.lists:
            return History([], is_complete=False)
        found = await self._history(Window(model, since, until), keep or (lambda _: True), caller)
        count_call(self.name, "history", "found" if found.is_complete else "no_answer", began)
        return found

    async def check_account(self) -> AccountCheck:
        """Make one call that costs nothing; return what it shows of the connection, the key and the account."""
        if self._fault:
            return AccountCheck(is_reached=False, is_asked=False, fault=self._fault)
        outcome = await self._call(self._api.account())
        if not isinstance(outcome, CallResponse):
            return AccountCheck(is_reached=False, fault=outcome.message)
        is_success = judged(self._api, outcome) == Judgement.BY_STATUS and 200 <= outcome.status < 300
        is_accepted = is_success or self._api.shows_good_key(outcome)
        fault = "" if is_accepted else f"HTTP {outcome.status}: {self._api.message(outcome)}"
        return AccountCheck(is_reached=True, fault=fault, date=outcome.date, calls_left=outcome.calls_left)

    def key_refusal(self) -> str | None:
        """Return why the provider refused the account's key at the last call; None if it did not."""
        return self._refusal

    def paused_for(self) -> float:
        """Return the seconds until the end of the pause that the provider asked for; 0 if there is none."""
        return self._calls.rate_limiter.paused_for()

    async def check_signature(self, body: bytes, headers: Headers) -> Signature:
        """Check the signature of a webhook. Keys are kept for a day, and fetched again if none of them made it."""
        request = self._api.signing_keys()
        if request is None:
            return self._verified(body, headers, None)
        keys = await self._signing_keys(request, _KEYS_SECONDS)
        signature = Signature.UNCHECKED if keys is None else self._verified(body, headers, keys)
        if signature == Signature.WRONG and (again := await self._signing_keys(request, _KEYS_AGAIN_SECONDS)) != keys:
            signature = self._verified(body, headers, again)
        return signature

    def parse_webhook(self, body: bytes, *, attempt: int | None = None, hidden: str = "") -> WebhookOutcome:
        """Turn an inbound webhook's body into what it comes to. Raises `MalformedUpdate`."""
        outcome = self._api.parse_webhook(_without((*self._secrets, hidden), body, read_json(body)))
        if isinstance(outcome, ProviderUpdate):
            return replace(outcome, source=Source.WEBHOOK, attempt=attempt)
        return outcome

    def parse_task(self, task: dict[str, Any], *, attempt: int | None = None) -> ProviderUpdate:
        """Turn one item of `history` into an update (source `poll`). Raises `MalformedUpdate`."""
        return replace(self._api.parse_task(task), source=Source.POLL, attempt=attempt)

    def redact(self, body: bytes, *, hidden: str = "") -> str:
        """Return an inbound body as text without secrets. Never raises, whatever the body is."""
        secrets = (*self._secrets, hidden)
        try:
            return orjson.dumps(_without(secrets, body, read_json(body))).decode()
        except (MalformedUpdate, orjson.JSONEncodeError):
            return _plain(body, secrets)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._calls.aclose()

    async def _submit(self, task: NewTask, caller: CallerKey | None, confirm: ConfirmSend | None) -> SubmitOutcome:
        if self._fault:
            refused = unauthorized(self.name, self._account.name, self._fault)
            self._refusal = refused.message
            return refused
        try:
            request = self._api.create(task)
            self._own(request.url)  # an address that cannot be asked is refused now, and not sent later
        except CannotAsk as error:
            return Refused(400, str(error), envelope(400, str(error)))
        outcome = await self._call(request, hidden=task.webhook_secret or "", caller=caller, confirm=confirm)
        return await read_by_size(_size(outcome), lambda: submit_outcome(outcome, self._api, task, self._account.name))

    async def _fetch(self, task: ProviderTask, hidden: str, caller: CallerKey | None) -> FetchOutcome:
        if self._fault:
            return NoAnswer(self._fault, unauthorized=True)
        try:
            request = self._api.look(task)
        except CannotAsk as error:  # of a task of which too little is known
            return NoAnswer(str(error))
        look = await self._call(request, hidden=hidden, caller=caller)
        name = self._account.name
        outcome = await read_by_size(_size(look), lambda: fetch_outcome(look, self._api, task, name))
        if not isinstance(outcome, Request):
            return outcome
        assert isinstance(look, CallResponse)  # noqa: S101 - only an answer leads to a second call
        result = await self._call(outcome, hidden=hidden, caller=caller)
        return await read_by_size(_size(result), lambda: result_outcome(result, self._api, task, look, name))

    async def _find(self, reference: str, model: str, task_type: str, caller: CallerKey | None) -> FetchOutcome:
        if self._fault:
            return NoAnswer(self._fault, unauthorized=True)
        try:
            request = self._api.find(reference, model, task_type)
        except CannotAsk as error:
            return NoAnswer(str(error))
        for _ in range(_MOST_FOUND_PAGES):
            if request is None:
                break
            answer = await self._call(request, caller=caller)
            outcome = found_outcome(answer, self._api, reference, self._account.name)
            if not isinstance(outcome, Request):
                return outcome
            request = outcome
        return Missing("the provider has no task with our reference")

    async def _cancel(self, task: ProviderTask, caller: CallerKey | None) -> CancelOutcome:
        if self._fault:
            return unauthorized(self.name, self._account.name, self._fault)
        if self.capabilities.cancels == CancelScope.NONE:
            message = f"{self.name} cannot cancel a task that it has accepted"
            return Refused(409, message, envelope(409, message))
        is_queued_only = self.capabilities.cancels == CancelScope.QUEUED
        if is_queued_only or self.capabilities.erases_ended:
            looked = await self._fetch(task, "", caller)
            if not isinstance(looked, Found):
                return looked
            if looked.update.status in TERMINAL:
                message = f"the task has ended: it is {looked.update.status}"
                return Refused(409, message, envelope(409, message))
            if is_queued_only and looked.update.status not in _UNBEGUN:
                message = f"{self.name} cancels only tasks that it has not begun; this one is {looked.update.status}"
                return Refused(409, message, envelope(409, message))
        try:
            request = self._api.cancel(task)
        except CannotAsk as error:
            return Refused(409, str(error), envelope(409, str(error)))
        outcome = await self._call(request, caller=caller)
        return cancel_outcome(outcome, self._api, self._account.name)

    async def _history(self, window: Window, keep: Keep, caller: CallerKey | None) -> History:
        kept: list[dict[str, Any]] = []
        try:
            request: Request | None = self._api.page(window)
        except CannotAsk:  # of a model that has no list
            return History(kept, is_complete=False)
        for _ in range(_MOST_PAGES):
            if request is None:
                return History(kept, is_complete=True)
            answer = await self._page(request, caller)
            if answer is None:
                break
            try:
                page = await read_by_size(answer.size, partial(self._api.read_page, answer, window))
            except MalformedUpdate:
                break
            kept += [item for item in page.tasks if keep(item)]
            request = page.following
        return History(kept, is_complete=False)

    async def _page(self, request: Request, caller: CallerKey | None) -> CallResponse | None:
        """Ask for one page, again while the provider asks to wait; return its answer, None without a usable one."""
        for _ in range(_MOST_WAITS):
            answer = await self._call(request, caller=caller)
            if not isinstance(answer, CallResponse):
                return None
            judgement = judged(self._api, answer)
            if judgement == Judgement.BY_STATUS and 200 <= answer.status < 300:
                return answer
            if judgement != Judgement.LATER:
                return None
            await asyncio.sleep(self.paused_for())
        return None

    async def _call(
        self,
        request: Request,
        *,
        hidden: str = "",
        caller: CallerKey | None = None,
        confirm: ConfirmSend | None = None,
    ) -> MadeCall:
        now = wall_now().timestamp()
        try:
            url = self._own(request.url)
        except CannotAsk as error:
            return NotSent(str(error))
        content, form = _content(request)
        outcome = await self._calls.call(
            request.method,
            url,
            params=request.params or None,
            content=content,
            headers={**self._api.auth(self._account.credentials, now), **request.headers, **form},
            hidden=hidden,
            caller=caller,
            confirm=confirm,
            file_types=request.file_types,
        )
        if isinstance(outcome, CallResponse):
            is_refused = judged(self._api, outcome) == Judgement.UNAUTHORIZED
            words = self._api.message(outcome) if is_refused else ""
            self._refusal = unauthorized(self.name, self._account.name, words).message if is_refused else None
        return outcome

    def _own(self, url: str) -> str:
        """Return a URL of the provider's, or its path where it is below the base URL or elsewhere.

        An account with another base URL (a proxy, a sandbox) has everything there. A URL that leads off the provider's
        hosts is not followed: its path is asked for at the provider instead. Raises `CannotAsk` for what is neither a
        URL nor a path, and for one with `..` in it, which leads elsewhere than it seems.
        """
        try:
            parts, base = urlsplit(url), urlsplit(self._base_url)
        except ValueError:
            raise CannotAsk("the address at the provider is no URL") from None
        if not (parts.netloc or url.startswith("/")) or not _DOTS.isdisjoint(parts.path.split("/")):
            raise CannotAsk("the address at the provider is no URL, or one with dots that lead elsewhere")
        path, query = parts.path or "/", f"?{parts.query}" if parts.query else ""
        if not parts.netloc:
            return url
        if self._account.base_url is None and parts.scheme == "https" and parts.netloc in self._api.hosts:
            return f"https://{parts.netloc}{path}{query}"
        # A base URL with a path of its own is in the URLs below it already. What is left begins with a slash, or it
        # would be taken for a whole URL.
        if parts.netloc == base.netloc and f"{path}/".startswith(f"{base.path}/"):
            path = path.removeprefix(base.path) or "/"
        return f"{path}{query}"

    async def _signing_keys(self, request: Request, most_seconds: float) -> Any:
        """Return the keys, fetched again if they are older than this; None if they cannot be had.

        While they cannot be had, webhooks do not wait one after the other for a call each.
        """
        async with self._fetching_keys:
            now = monotonic()
            is_fresh, has_failed = now - self._keys_at < most_seconds, now < self._keys_not_before
            if is_fresh or has_failed or self._fault:
                return self._keys
            answer = await self._call(request)
            if isinstance(answer, CallResponse) and answer.status == 200 and answer.body is not None:
                self._keys, self._keys_at = answer.body, monotonic()
            else:
                self._keys_not_before = monotonic() + _KEYS_RETRY_SECONDS
            return self._keys

    def _verified(self, body: bytes, headers: Headers, keys: Any) -> Signature:
        now = wall_now().timestamp()
        return self._api.verify(body, headers, credentials=self._account.credentials, keys=keys, now=now)


class _Calls(HTTPCalls[CallResponse]):
    """Calls to a provider, whose responses are read as any JSON."""

    def read_body(self, body: bytes, hidden: tuple[str, ...]) -> tuple[Any, str]:
        """Return the body as JSON without secrets, or as plain text."""
        try:
            return _without(hidden, body, read_json(body, cut=True)), ""
        except MalformedUpdate:
            text = _plain(body[:_LONGEST_PLAIN], hidden).strip()[:_LONGEST_TEXT]
            return None, "" if "<" in text else text

    def response(
        self, status: int, value: Any, text: str, retry_after: float | None, size: int, **more: Any
    ) -> CallResponse:
        """Return a response; where no header says how long to wait, the body may."""
        wait = told_wait(value) if retry_after is None and status in TEMPORARY else retry_after
        return CallResponse(status, value, text, wait, size, **more)


def _credential_fault(api: API, account: ProviderAccount) -> str | None:
    """Return why the account cannot be used, without repeating a credential; None if it can."""
    if not (account.base_url or api.base_url):
        return f"account {account.name!r} of {api.name} has no base_url"
    for name in (*api.credential_names, *api.optional_credentials):
        value = account.credentials.get(name, "").strip()
        if not value and name in api.credential_names:
            return f"account {account.name!r} of {api.name} has no {name}"
        if not (value.isascii() and value.isprintable()):
            return f"the {name} of account {account.name!r} of {api.name} has characters that no header may have"
    return None


def _content(request: Request) -> tuple[bytes | None, dict[str, str]]:
    """Return the bytes of a request's body, None if it has none, and the header that says their form."""
    if request.parts is not None:
        boundary = token_hex(16)
        return written(request.parts, boundary), {"content-type": f"multipart/form-data; boundary={boundary}"}
    return None if request.body is None else orjson.dumps(request.body), {}


def _with_attempt(outcome: FetchOutcome, attempt: int | None) -> FetchOutcome:
    return Found(replace(outcome.update, attempt=attempt)) if isinstance(outcome, Found) else outcome


def _without(secrets: Sequence[str], body: bytes, value: Any) -> Any:
    held = [secret for secret in secrets if may_hold(body, secret)]
    return redact_value(value, held) if held else value


def _plain(body: bytes, secrets: Sequence[str]) -> str:
    text = body.decode("utf-8", "replace").replace("\0", "")
    for secret in secrets:
        text = redact_text(text, secret)
    return text


def _size(outcome: MadeCall) -> int:
    return outcome.size if isinstance(outcome, CallResponse) else 0
