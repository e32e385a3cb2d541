"""What the provider's list has of the creates that are searched for."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from receiver.domain.lost_creates import request_digest
from receiver.domain.updates import ProviderUpdate
from receiver.large_bodies import read_apart
from receiver.providers import MalformedUpdate, Provider
from receiver.storage.database import Database
from receiver.storage.lost_creates import inputs_of
from receiver.telemetry.log import get_logger
from receiver.tracking.task_references import TaskReferences

log = get_logger("tracking.listed_tasks")

_INPUTS_AT_ONCE = 20
"""An input may have pictures in it, and so be large."""
_NAMED = re.compile(r"/([0-9a-f-]{36})(?:\?attempt=([0-9]{1,9}))?$")
"""The end of a task's webhook URL: its id, and the attempt from the second one on."""


class Requests:
    """Makes the digests of the requests that were sent."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._references = TaskReferences(database)

    async def digests(self, model: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
        """Return the digest of each task's request as it was sent, by the task's id."""
        found: dict[str, bytes] = {}
        uids = list(rows)
        for start in range(0, len(uids), _INPUTS_AT_ONCE):
            for row in await self._database.read(inputs_of(uids[start : start + _INPUTS_AT_ONCE])):
                sent = await self._references.as_sent(row)
                digest = partial(request_digest, model, rows[row["uid"]]["task_type"], sent)
                try:
                    found[row["uid"]] = await read_apart(digest)  # which looks at each value of the input
                except (TypeError, ValueError, RecursionError) as error:  # it is found by its webhook URL alone
                    log.warning("request cannot be compared", task_id=row["uid"], error=type(error).__name__)
        return found


class ListedTasks:
    """The entries of a list that may be of the creates `rows`, whose requests have the digests `requests`.

    `named` has the entries whose webhook URL names one of the creates, by its id and the number of the attempt;
    `unnamed` those without a webhook URL that have the request of one, with its digest. `is_unreadable` says that an
    entry raised an exception: it may be one of the creates, so that the list proves nothing about those that it lacks.
    """

    def __init__(
        self,
        provider: Provider,
        model: str,
        rows: Mapping[str, Mapping[str, Any]],
        requests: Mapping[str, bytes],
    ) -> None:
        self._provider = provider
        self._model = model
        self._uids = frozenset(rows)
        self._requests = frozenset(requests.values())
        self._types = sorted({row["task_type"] for row in rows.values()})
        self.is_unreadable = False
        self.named: dict[str, dict[int, ProviderUpdate]] = {}
        self.unnamed: list[tuple[bytes, ProviderUpdate]] = []

    def wants(self, item: dict[str, Any]) -> bool:
        """Return whether an item of the list may be one of the creates. It may be called in a thread."""
        update = self._parsed(item)
        return update is not None and (self._named(update) is not None or self._request(update) is not None)

    async def read(self, items: Sequence[dict[str, Any]]) -> None:
        """Sort the items that are wanted into `named` and `unnamed`."""
        if items:
            await read_apart(partial(self._read, items))  # each may be as large as a body

    def _read(self, items: Sequence[dict[str, Any]]) -> None:
        for item in items:
            update = self._parsed(item)
            if update is None:
                continue
            if (name := self._named(update)) is not None:
                self.named.setdefault(name[0], {})[name[1]] = update
            elif (request := self._request(update)) is not None:
                self.unnamed.append((request, update))

    def _parsed(self, item: dict[str, Any]) -> ProviderUpdate | None:
        """Return an item as an update; None if it cannot be read or has no id, for it may be another's."""
        try:
            update = self._provider.parse_task(item)
        except MalformedUpdate:
            return None
        except Exception as error:
            if not self.is_unreadable:
                log.error("entry of the provider's list cannot be read", provider=self._provider.name, exc_info=error)
            self.is_unreadable = True
            return None
        return update if update.provider_task_id else None

    def _named(self, update: ProviderUpdate) -> tuple[str, int] | None:
        """Return the task's id and the attempt that the webhook URL names, None if it names none of the creates."""
        found = _NAMED.search(_webhook_url(update))
        return (found[1], int(found[2] or 1)) if found is not None and found[1] in self._uids else None

    def _request(self, update: ProviderUpdate) -> bytes | None:
        """Return the digest of the request, None if there is a webhook URL or no create has that request."""
        if _webhook_url(update) or update.model not in (None, "", self._model):
            return None
        types = [update.task_type] if update.task_type else self._types
        try:
            digests = {request_digest(self._model, each, update.input) for each in types} & self._requests
        except (TypeError, ValueError, RecursionError):  # no request of ours is like that
            return None
        return digests.pop() if len(digests) == 1 else None


def _webhook_url(update: ProviderUpdate) -> str:
    """Return the webhook URL that the provider has for a task, "" if it has none. The item may be of any form."""
    webhook_config = (update.config or {}).get("webhook_config")
    endpoint = webhook_config.get("endpoint") if isinstance(webhook_config, dict) else webhook_config
    return endpoint if isinstance(endpoint, str) and "://" in endpoint else ""
