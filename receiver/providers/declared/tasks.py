"""Reads a task in a provider's body, where its file says that it is."""

import re
from itertools import islice, product
from typing import Any

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers import fields
from receiver.providers.api import CannotAsk
from receiver.providers.base import MalformedUpdate
from receiver.providers.declared.expressions import Expression
from receiver.providers.declared.file_form import ProviderFile, ReadingTable
from receiver.providers.reports import LONGEST_ID, checked_id, failure, report, status_of

_TOKEN = re.compile(r"(/hooks/[^/?]+/[^/?]+)/[^/?]+")
"""The proof in an address of ours."""
_MOST_FILES = 100


class TaskReader:
    """Reads tasks by the tables `[task]` and `[words]` of a file."""

    def __init__(self, file: ProviderFile) -> None:
        self._base_url = file.base_url.rstrip("/")
        self._download = file.download
        self._task = file.task
        self._words = file.words.by_word()

    def id_in(self, body: Any, place: ReadingTable) -> str:
        """Return the id of the task in a body. Raises `MalformedUpdate` if there is none."""
        task = _object_in(body, place)
        expression = place.id or self._task.id
        return checked_id(expression.of(task), expression.text)

    def read(self, body: Any, place: ReadingTable, *, without_word: TaskStatus | None = None) -> ProviderUpdate:
        """Return the update that the task in a body is. Raises `MalformedUpdate`.

        `without_word` is its status where it has no word for it; without that it must have one.
        """
        task, name = _object_in(body, place), self.id_in(body, place)
        status, word = self._status(task, place, without_word)
        at = self._task
        return report(
            status,
            word=word,
            provider_task_id=name,
            output=self._output(task, name) if status == TaskStatus.COMPLETED else None,
            error=failure(_of(at.code, task), at.error.of(task)) if status == TaskStatus.FAILED else None,
            progress=_percentage(_of(at.progress, task)),
            logs=_list_or_none(_of(at.logs, task)),
            meta=_object_or_none(_of(at.meta, task)),
            model=fields.read_name(_of(at.model, task)),
            input=_of(at.input, task),
            config=_config(_of(at.webhook_url, task)),
            created_at=fields.read_time(_of(at.created_at, task)),
            started_at=fields.read_time(_of(at.started_at, task)),
            ended_at=fields.read_time(_of(at.ended_at, task)),
        )

    def _output(self, task: dict[str, Any], name: str) -> Any:
        """Return a completed task's output, with the addresses of its files where those are downloaded with the key.

        They are those of the provider itself: that of an account may be a proxy's, which is the operator's affair.
        """
        output, download = self._task.output.of(task), self._download
        if download is None:
            return output
        values = {key: _names(expression.of(task)) for key, expression in download.values.items()}
        if not all(values.values()):
            raise MalformedUpdate(f"the task has completed, and nothing names its files: {', '.join(values)}")
        kind = _of(download.content_type, task)
        beside = {"content_type": kind} if isinstance(kind, str) and kind else {}
        try:
            files = [
                {"url": f"{self._base_url}{download.path.as_path({'id': name, **named})}", **beside, **named}
                for each in islice(product(*values.values()), _MOST_FILES)
                for named in [dict(zip(values, each, strict=True))]
            ]
        except CannotAsk as error:
            raise MalformedUpdate(str(error)) from None
        own = output if isinstance(output, dict) else {} if output is None else {"value": output}
        return {**own, "files": files}

    def means(self, body: Any, place: ReadingTable) -> TaskStatus | None:
        """Return the status of the task in a body; None if it has none that is known."""
        try:
            return self._status(_object_in(body, place), place, None)[0]
        except MalformedUpdate:
            return None

    def _status(
        self, task: dict[str, Any], place: ReadingTable, without_word: TaskStatus | None
    ) -> tuple[TaskStatus | None, str]:
        expression = place.status or self._task.status
        found = expression.of(task)
        if found is None or found == "":
            if without_word is None:
                raise MalformedUpdate(f"{expression.text} must be the word for the task's state")
            return without_word, ""
        return status_of(found, self._words)


def _object_in(body: Any, place: ReadingTable) -> dict[str, Any]:
    found = place.task.of(body)
    if not isinstance(found, dict):
        what = "the body" if place.task.text == "@" else place.task.text
        raise MalformedUpdate(f"{what} is not a JSON object")
    return found


def _of(expression: Expression | None, task: dict[str, Any]) -> Any:
    return None if expression is None else expression.of(task)


def _names(value: Any) -> list[str]:
    """Return what a value, or each item of a list, names; nothing that is too long for an id."""
    found = map(fields.read_task_id, value if isinstance(value, list) else [value])
    return [each for each in found if each and len(each) <= LONGEST_ID]


def _percentage(value: Any) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return int(min(max(value, 0), 100)) if is_number else 0


def _list_or_none(value: Any) -> list[Any] | None:
    return value if isinstance(value, list) and value else None


def _object_or_none(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) and value else None


def _config(url: Any) -> dict[str, Any] | None:
    """Return the config with our address for webhooks, by which a task in a list is recognised, without its token."""
    return {"webhook_config": {"endpoint": _TOKEN.sub(r"\1", url)}} if isinstance(url, str) and url else None
