"""The API of a provider that a file describes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from msgspec.structs import replace

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers import fields
from receiver.providers.api import BaseAPI, CannotAsk, Credentials, Judgement, ListPage, Request, Window
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.capabilities import CallbackScope, Capabilities
from receiver.providers.declared.auth import auth_headers
from receiver.providers.declared.file_form import ProviderFile, ResultTable, WebhookTable
from receiver.providers.declared.requests import as_form, check_form, moment_values, request_of, task_values, with_value
from receiver.providers.declared.signatures import described, verified
from receiver.providers.declared.tasks import TaskReader
from receiver.providers.reports import failure, report
from receiver.providers.webhook_outcomes import ChallengeAnswer, Headers, LookNow, Signature, WebhookOutcome

_JUDGEMENTS = {
    "unauthorized": Judgement.UNAUTHORIZED,
    "no_money": Judgement.NO_MONEY,
    "later": Judgement.LATER,
    "missing": Judgement.MISSING,
    "refused": Judgement.REFUSED,
}
"""In this order: the first that holds counts."""
_LONGEST_NAME = 1000
"""Characters of what names a result."""


class DeclaredAPI(BaseAPI):
    """What an adapter has to know of an API, as a file tells it."""

    def __init__(self, file: ProviderFile) -> None:
        self.name = file.name
        self.base_url = file.base_url.rstrip("/")
        self.hosts = file.hosts
        self.credential_names = file.credentials
        self.optional_credentials = file.optional_credentials
        self.capabilities = _capabilities(file)
        self._file = file
        self._reader = TaskReader(file)

    def auth(self, credentials: Credentials, now: float) -> Mapping[str, str]:
        """Return the headers that authenticate a call, and those that every call has."""
        own = {name.lower(): value for name, value in self._file.headers.items()}
        return own | auth_headers(self._file, credentials, now)

    def create(self, task: NewTask) -> Request:
        """Return the create call. The client's `input` is in the provider's own form."""
        submit = self._file.submit
        values = {"model": task.model, "task_type": task.task_type, "reference": task.reference}
        for name, form in (("model", submit.model), ("task_type", submit.task_type)):
            check_form(name, values[name], form)
        request = request_of(submit, values, {**values, "input": task.input})
        if submit.body is not None and request.body is None:
            raise CannotAsk("the input is not as this provider's file expects it: it makes no body of it")
        for place, value in ((submit.callback, task.webhook_url), (submit.reference, task.reference or None)):
            if place is not None and value is not None:
                request = with_value(request, place, value)
        return as_form(request) if submit.sends == "multipart" else request

    def read_created(self, answer: CallResponse, task: NewTask) -> ProviderUpdate:
        """Return the task that was made."""
        return self._reader.read(answer.body, self._file.submit, without_word=TaskStatus.PENDING)

    def look(self, task: ProviderTask) -> Request:
        """Return the request that asks for a task."""
        return replace(request_of(self._file.look, task_values(task)), file_types=self._file.look.file_types)

    def read_look(self, answer: CallResponse, task: ProviderTask) -> ProviderUpdate | Request:
        """Return the task, or the request for its result."""
        body = _with_head(answer, task) if self._file.look.file_types else answer.body
        update = self._reader.read(body, self._file.look)
        result = self._file.result
        if result is None or update.status != TaskStatus.COMPLETED:
            return update
        found = self._file.look.task.of(answer.body)
        named = {name: fields.read_task_id(expression.of(found)) for name, expression in result.values.items()}
        if not all(0 < len(each) <= _LONGEST_NAME for each in named.values()):
            raise MalformedUpdate(f"the task has completed, and nothing names its result: {', '.join(named)}")
        try:
            return request_of(result, task_values(task) | named)
        except CannotAsk as error:
            raise MalformedUpdate(str(error)) from None

    def read_result(self, answer: CallResponse, task: ProviderTask, look: CallResponse) -> ProviderUpdate:
        """Return the end of a task whose result is in a second call."""
        update = self._reader.read(look.body, self._file.look)
        result = self._result()
        error = None if result.error is None else result.error.of(answer.body)
        if error:
            return report(TaskStatus.FAILED, provider_task_id=update.provider_task_id, error=failure(None, error))
        return report(
            TaskStatus.COMPLETED,
            provider_task_id=update.provider_task_id,
            output=result.output.of(answer.body),
            meta=update.meta,
            created_at=update.created_at,
            ended_at=update.ended_at,
        )

    def cancel(self, task: ProviderTask) -> Request:
        """Return the request that cancels a task."""
        if self._file.cancel is None:
            return super().cancel(task)
        return request_of(self._file.cancel, task_values(task))

    def is_cancelled(self, answer: CallResponse) -> bool:
        """Return whether the task is cancelled now."""
        cancel = self._file.cancel
        return cancel is None or cancel.done is None or cancel.done.holds(answer.body)

    def page(self, window: Window) -> Request:
        """Return the request for the first page of the list."""
        if self._file.list is None:
            return super().page(window)
        moments = {"since": window.since, "until": window.until or datetime.max}
        values = {"model": window.model}
        for name, moment in moments.items():
            values |= moment_values(name, moment)
        return request_of(self._file.list, values)

    def read_page(self, answer: CallResponse, window: Window) -> ListPage:
        """Return a page. The next one is asked for unless this one goes back beyond the window."""
        listed = self._file.list
        if listed is None:
            return super().read_page(answer, window)
        items, following = listed.items.of(answer.body), listed.next.of(answer.body)
        if not isinstance(items, list):
            raise MalformedUpdate(f"{listed.items.text} must be a list")
        tasks = [each for each in items if isinstance(each, dict)]
        if following in (None, False, "") or not items or self._is_before(items[-1], window):
            return ListPage(tasks, None)
        if listed.next_query is None:
            if not isinstance(following, str):
                raise MalformedUpdate(f"{listed.next.text} must be an address")
            return ListPage(tasks, Request(method=listed.method, url=following))
        first = self.page(window)
        text = following if isinstance(following, str) else orjson.dumps(following).decode()
        params = {**first.params, listed.next_query: text}
        return ListPage(tasks, replace(first, params=params))

    def parse_task(self, task: dict[str, Any]) -> ProviderUpdate:
        """Return a task of the list."""
        return self._reader.read(task, self._file.list or self._file.look)

    def find(self, reference: str, model: str, task_type: str) -> Request | None:
        """Return the request that asks for a task by our reference."""
        if self._file.find is None:
            return super().find(reference, model, task_type)
        return request_of(self._file.find, {"reference": reference, "model": model, "task_type": task_type})

    def read_found(self, answer: CallResponse, reference: str) -> ProviderUpdate | Request | None:
        """Return the task that was found."""
        update = self._reader.read(answer.body, self._file.find or self._file.look)
        if self._file.result is not None and update.status == TaskStatus.COMPLETED:
            # It is looked at next, and then its result is asked for.
            return report(TaskStatus.PROCESSING, provider_task_id=update.provider_task_id)
        return update

    def account(self) -> Request:
        """Return the request that costs nothing."""
        return request_of(self._file.account, {})

    def shows_good_key(self, answer: CallResponse) -> bool:
        """Return whether the file says that an answer shows it."""
        good = self._file.account.good
        return good is not None and good.holds(_answer(answer))

    def judge(self, answer: CallResponse) -> Judgement:
        """Return what an answer means, by the first expression that holds."""
        value = _answer(answer)
        for name, judgement in _JUDGEMENTS.items():
            expression = getattr(self._file.answers, name)
            if expression is not None and expression.holds(value):
                return judgement
        return Judgement.BY_STATUS

    def message(self, answer: CallResponse) -> str:
        """Return the provider's words, where the file says that they are or where they usually are."""
        expression = self._file.answers.message
        words = None if expression is None else expression.of(_answer(answer))
        return words[:500] if isinstance(words, str) and words.strip() else super().message(answer)

    def signing_keys(self) -> Request | None:
        """Return the request for the public keys."""
        webhook = self._file.webhook
        jwks = None if webhook is None else webhook.proof.jwks
        return None if jwks is None else Request(method="GET", url=jwks)

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Check the proof that the file names."""
        if self._file.webhook is None:
            return Signature.WRONG
        has_token = self.capabilities.callback == CallbackScope.TASK
        proof = self._file.webhook.proof
        return verified(proof, body, headers, credentials=credentials, keys=keys, now=now, has_token=has_token)

    def parse_webhook(self, value: Any) -> WebhookOutcome:
        """Return the task that a webhook tells of, or that it is to be looked at, or the answer to a challenge."""
        webhook = self._file.webhook
        if webhook is None:
            raise MalformedUpdate(f"{self.name} sends no webhooks")
        if webhook.challenge is not None and (expected := webhook.challenge.of(value)) is not None:
            return _challenge_answer(expected)
        if _is_thin(webhook, value):
            return LookNow(self._reader.id_in(value, webhook))
        update = self._reader.read(value, webhook)
        # What needs a second call is never in a webhook.
        is_half = update.status == TaskStatus.COMPLETED and self._file.result is not None
        return LookNow(update.provider_task_id) if is_half else update

    def _result(self) -> ResultTable:
        if self._file.result is None:
            raise MalformedUpdate(f"{self.name} has no second call for a result")
        return self._file.result

    def _is_before(self, item: Any, window: Window) -> bool:
        created = self._file.task.created_at
        made = fields.read_time(created.of(item)) if created is not None else None
        return made is not None and made < window.since


def _capabilities(file: ProviderFile) -> Capabilities:
    can = file.capabilities
    return Capabilities(
        callback=can.callback,
        proofs=() if file.webhook is None else described(file.webhook.proof),
        cancels=can.cancels,
        erases_ended=can.erases_ended,
        lists=file.list is not None,
        finds=file.find is not None,
        output_seconds=can.output_seconds,
        record_seconds=can.record_seconds,
        least_poll_seconds=can.least_poll_seconds,
        outputs_need_key=can.outputs_need_key or file.download is not None,
    )


def _with_head(answer: CallResponse, task: ProviderTask) -> dict[str, Any]:
    """Return what expressions see of an answer that may be the task's file.

    Raises `MalformedUpdate` for one that is neither that nor JSON, such as the page of a proxy.
    """
    if answer.body is None and answer.size and not answer.is_file:
        raise MalformedUpdate("the answer is neither JSON nor a file of file_types")
    head = {"status": answer.status, "headers": dict(answer.headers), "is_file": answer.is_file}
    return {"id": task.id, "body": answer.body, **head}


def _answer(answer: CallResponse) -> dict[str, Any]:
    return {"status": answer.status, "body": answer.body, "text": answer.text}


def _is_thin(webhook: WebhookTable, value: Any) -> bool:
    return webhook.thin if isinstance(webhook.thin, bool) else webhook.thin.holds(value)


def _challenge_answer(expected: Any) -> ChallengeAnswer:
    if isinstance(expected, str):
        return ChallengeAnswer(expected.encode(), "text/plain; charset=utf-8")
    return ChallengeAnswer(orjson.dumps(expected))
