"""Runs a provider's file against recorded exchanges, and explains what it sends and how it reads what is answered.

The cases of `deploy/providers/kling.toml` are in `kling.cases.json` beside it. Nothing is sent anywhere.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, ValidationError

from receiver.domain.updates import ProviderUpdate
from receiver.providers.api import CannotAsk, FormPart, Judgement, Request
from receiver.providers.base import Accepted, Found, MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse, is_file_type
from receiver.providers.declared.api import DeclaredAPI
from receiver.providers.declared.faults import FaultyFile, FileFault
from receiver.providers.outcomes import (
    cancel_outcome,
    fetch_outcome,
    found_outcome,
    judged,
    result_outcome,
    submit_outcome,
)
from receiver.providers.webhook_outcomes import ChallengeAnswer, LookNow

_ACCOUNT = "default"
_HIDDEN = "..."
_WEBHOOK_URL = "https://ringback.example.com/hooks/{name}/{{task}}/{{token}}"
_CONTENT = ("status", "word", "progress", "output", "error", "message", "retry_after", "code")


class _Read(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GivenTask(_Read):
    """A task as a client creates it, and for calls about one that exists its id at the provider."""

    model: str = ""
    task_type: str = ""
    input: dict[str, Any] = {}
    id: str = ""
    webhook_url: str | None = None
    reference: str = ""


class RecordedAnswer(_Read):
    """An answer as it was recorded."""

    status: int = 200
    body: Any = None
    text: str = ""
    headers: dict[str, str] = {}


class Case(_Read):
    """An exchange, where it was found, and what it must come to. `about` is one of our calls, or `webhook`."""

    name: str
    source: str
    about: str
    note: str = ""
    task: GivenTask = GivenTask()
    sends: dict[str, Any] | None = None
    answer: RecordedAnswer | None = None
    look: RecordedAnswer | None = None
    webhook: Any = None
    means: dict[str, Any] | None = None


class Cases(_Read):
    """A whole file of cases. `sample` is a task that shows what is sent; `twin` is for the sandbox."""

    source: str
    sample: GivenTask
    cases: tuple[Case, ...]
    twin: dict[str, Any] = {}


class CaseOutcome(Struct, frozen=True):
    """What became of a case: what was sent and read, and what of that is not as it must be."""

    name: str
    sent: dict[str, Any] | None
    read: dict[str, Any] | None
    faults: tuple[str, ...]


def cases_path(path: Path) -> Path:
    """Return where the cases of a provider's file are."""
    return path.with_suffix(".cases.json")


def read_cases(path: Path) -> Cases | None:
    """Return the cases of a provider's file, None if it has none. Raises `FaultyFile`."""
    beside = cases_path(path)
    if not beside.exists():
        return None
    try:
        return Cases.model_validate(orjson.loads(beside.read_bytes()))
    except OSError as error:
        raise FaultyFile([FileFault(beside, None, str(error.strerror))]) from None
    except orjson.JSONDecodeError as error:
        raise FaultyFile([FileFault(beside, error.lineno, f"not valid JSON: {error.msg}")]) from None
    except ValidationError as error:
        faults = error.errors(include_url=False)
        places = [".".join(map(str, fault["loc"])) for fault in faults]
        told = [FileFault(beside, None, f"{at}: {each['msg']}") for at, each in zip(places, faults, strict=True)]
        raise FaultyFile(told) from None


def sample_request(api: DeclaredAPI, sample: GivenTask) -> dict[str, Any]:
    """Return the create call of the sample, with its credentials hidden. Raises `CannotAsk`."""
    given = sample.model_copy(update={"webhook_url": sample.webhook_url or _WEBHOOK_URL.format(name=api.name)})
    return shown(api, api.create(_new_task(given)), with_headers=True)


def run(api: DeclaredAPI, case: Case) -> CaseOutcome:
    """Run one case."""
    try:
        sent = _sent(api, case)
    except CannotAsk as error:
        sent = {"cannot_ask": str(error)}
    read = _read(api, case)
    faults = [
        *(_differences("sends", case.sends, sent) if case.sends is not None else ()),
        *(_differences("means", case.means, read) if case.means is not None else ()),
    ]
    return CaseOutcome(case.name, sent, read, tuple(faults))


def shown(api: DeclaredAPI, request: Request, *, with_headers: bool = False) -> dict[str, Any]:
    """Return a request as it would be sent; credentials in headers are hidden."""
    query = f"?{urlencode(request.params)}" if request.params else ""
    url = request.url if urlsplit(request.url).netloc else f"{api.base_url}{request.url}"
    told: dict[str, Any] = {"method": request.method, "url": f"{url}{query}", "body": request.body}
    if request.parts is not None:
        told["body"] = [_shown_part(part) for part in request.parts]
    if with_headers:
        credentials = dict.fromkeys((*api.credential_names, *api.optional_credentials), _HIDDEN)
        own = api.auth(credentials, now=0.0)
        told["headers"] = {name: _hidden(value) for name, value in own.items()} | dict(request.headers)
        if request.parts is not None:
            told["headers"]["content-type"] = "multipart/form-data"
    return told


def _shown_part(part: FormPart) -> dict[str, Any]:
    if part.file_name is None:
        return {"name": part.name, "text": part.content.decode()}
    about = {"file_name": part.file_name, "content_type": part.content_type, "bytes": len(part.content)}
    return {"name": part.name, **about}


def _hidden(value: str) -> str:
    """Return a header's value without what is made of credentials: a token has no three dots in it."""
    scheme, _, rest = value.partition(" ")
    return f"{scheme} {_HIDDEN}" if rest.count(".") == 2 and _is_token(rest) else value


def _is_token(text: str) -> bool:
    try:
        return "alg" in orjson.loads(base64.urlsafe_b64decode(text.split(".")[0] + "=="))
    except ValueError:
        return False


def _sent(api: DeclaredAPI, case: Case) -> dict[str, Any] | None:
    task = _provider_task(case)
    match case.about:
        case "submit":
            return shown(api, api.create(_new_task(case.task)))
        case "look":
            return shown(api, api.look(task))
        case "result" if case.look is not None:
            request = api.read_look(_response(case.look), task)
            return shown(api, request) if isinstance(request, Request) else None
        case "cancel":
            return shown(api, api.cancel(task))
        case "find":
            find = api.find(case.task.reference, task.model, task.task_type)
            return None if find is None else shown(api, find)
        case "account":
            return shown(api, api.account())
    return None


def _read(api: DeclaredAPI, case: Case) -> dict[str, Any] | None:
    if case.about == "webhook":
        return _read_webhook(api, case.webhook)
    if case.answer is None:
        return None
    answer, task = _response(case.answer), _provider_task(case)
    match case.about:
        case "submit":
            return _told(submit_outcome(answer, api, _new_task(case.task), _ACCOUNT))
        case "look":
            seen = _response(case.answer, api.look(task).file_types)
            return _told(fetch_outcome(seen, api, task, _ACCOUNT))
        case "result" if case.look is not None:
            return _told(result_outcome(answer, api, task, _response(case.look), _ACCOUNT))
        case "cancel":
            return _told(cancel_outcome(answer, api, _ACCOUNT))
        case "find":
            return _told(found_outcome(answer, api, case.task.reference, _ACCOUNT))
        case "account":
            is_good = judged(api, answer) == Judgement.BY_STATUS and 200 <= answer.status < 300
            return {"outcome": "accepted" if is_good or api.shows_good_key(answer) else str(judged(api, answer))}
    return {"outcome": f"no case is about {case.about!r}"}


def _read_webhook(api: DeclaredAPI, body: Any) -> dict[str, Any]:
    try:
        outcome = api.parse_webhook(body)
    except MalformedUpdate as error:
        return {"outcome": "malformed", "message": str(error)}
    if isinstance(outcome, LookNow):
        return {"outcome": "look now", "id": outcome.provider_task_id}
    if isinstance(outcome, ChallengeAnswer):
        return {"outcome": "answer", "body": outcome.body.decode(), "content_type": outcome.content_type}
    return {"outcome": "update", **_update(outcome)}


def _told(outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, Request):
        return {"outcome": "asks for the result", "url": outcome.url, "query": dict(outcome.params)}
    name = type(outcome).__name__
    if isinstance(outcome, Accepted | Found):
        return {"outcome": name, **_update(outcome.update)}
    values = {key: getattr(outcome, key, None) for key in _CONTENT}
    return {"outcome": name, **{key: value for key, value in values.items() if value is not None}}


def _update(update: ProviderUpdate) -> dict[str, Any]:
    told: dict[str, Any] = {"id": update.provider_task_id, "status": update.status}
    more = {"word": update.word, "progress": update.progress, "output": update.output, "meta": update.meta}
    if update.error is not None:
        more["error"] = {name: update.error[name] for name in ("code", "message")}
    return told | {name: value for name, value in more.items() if value}


def _differences(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any] | None) -> list[str]:
    """Return what is not as wanted. What is not named may be anything."""
    if found is None:
        return [f"{name}: there is nothing"]
    return [
        f"{name}.{key}: {_text(found.get(key))} must be {_text(value)}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _new_task(given: GivenTask) -> NewTask:
    return NewTask(
        model=given.model,
        task_type=given.task_type,
        input=given.input,
        webhook_url=given.webhook_url,
        reference=given.reference,
    )


def _provider_task(case: Case) -> ProviderTask:
    return ProviderTask(case.task.id, None, case.task.model, case.task.task_type)


def _response(recorded: RecordedAnswer, file_types: Sequence[str] = ()) -> CallResponse:
    """Return an answer as a call would return it: of a file nothing but the head."""
    headers = {name.lower(): value for name, value in recorded.headers.items()}
    is_file = is_file_type(recorded.status, headers.get("content-type", ""), file_types)
    body = None if is_file else recorded.body
    size = len(recorded.text) if body is None else len(orjson.dumps(body))
    return CallResponse(recorded.status, body, recorded.text, None, size, is_file=is_file, headers=headers)
