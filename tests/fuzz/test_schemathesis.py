"""Requests that schemathesis draws from `/openapi.json`, right ones and wrong ones, against the real service."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from tests.fakes.resources import one_of_each
from tests.fakes.world import API_KEY, in_process

EXAMPLES = {GenerationMode.POSITIVE: 2, GenerationMode.NEGATIVE: 1}
"""Of each operation: schemathesis takes a twentieth of a second for one."""
NOT_ASKED = re.compile(r"/v1/|/api/ephemeral_resource")
"""What is passed on: the answers are the provider's own."""
TURNED_OFF = {
    "positive_data_acceptance": "there are rules that no schema has: a cursor is of its list, an event type exists",
    "negative_data_rejection": "PiAPI's paths ignore unknown names; numbers may be texts; bulk items are checked apart",
}
load_all_checks()
KEPT: list[Any] = [check for check in CHECKS.get_all() if check.__name__ not in TURNED_OFF]


class Asker:
    """Asks every operation of the document. It waits for each answer, so it needs a thread beside the service's."""

    def __init__(self, base: str, ids: Mapping[str, str], subscriber: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.operations: set[str] = set()
        self._base = base
        self._ids = ids
        self._subscriber = subscriber
        self._random = random.Random(7)
        self._session = requests.Session()
        self._session.trust_env = False

    def ask_all(self) -> None:
        with self._session:
            for found in schemathesis.openapi.from_url(f"{self._base}/openapi.json").get_all_operations():
                operation: Any = found.ok() if isinstance(found, Ok) else pytest.fail(str(found.err()))
                if not NOT_ASKED.match(operation.path):
                    for mode, most in EXAMPLES.items():
                        self._ask(operation, mode, most)

    def _ask(self, operation: Any, mode: GenerationMode, most: int) -> None:
        @settings(
            max_examples=most,
            phases=[Phase.generate],
            database=None,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            self._place(case)
            headers = {"X-API-Key": API_KEY}
            answer = case.call_and_validate(session=self._session, headers=headers, checks=KEPT, timeout=40)
            self.statuses[answer.status_code] += 1
            self.operations.add(operation.label)

        try:
            ask()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing can be wrong in a request that has no parts

    def _place(self, case: Case[Any]) -> None:
        """Put ids that exist in most paths, and the subscriber's URL where one would be called."""
        for name in case.path_parameters or {}:
            if name in self._ids and self._random.random() < 0.8:
                case.path_parameters[name] = self._ids[name]
        if isinstance(case.body, dict) and isinstance(case.body.get("endpoint_url"), str):
            case.body["endpoint_url"] = self._subscriber


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")  # the service does, beside them
async def test_drawn_requests_are_answered_as_described(tmp_path: Path) -> None:
    async with in_process(tmp_path, key_rate="100000/s", retention_days="0") as world:
        asker = Asker(world.base, await one_of_each(world), world.subscriber.url)
        await asyncio.to_thread(asker.ask_all)
    assert len(asker.operations) > 50
    assert {200, 202, 400, 404} <= asker.statuses.keys()
