"""Runs many requests, several at once, and collects what does not hold."""

import asyncio
import contextlib
import io
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from receiver.loop_watchdog import LONGEST_SECONDS, LoopWatchdog, Stall
from receiver.serving.process import start_garbage_collection
from receiver.telemetry import configure_logging
from tests.fuzz.claims import broken_claims
from tests.fuzz.requests import FuzzRequest, make_request
from tests.fuzz.service import MARK, PLANTED, FuzzedService, fuzzed_service
from tests.fuzz.worst import worst_requests

AT_ONCE = 8
_MOST_FAILURES = 20
_LOG_SHOWN = 3000


@dataclass
class Findings:
    """What was asked, and what did not hold: each failure with the number of its request."""

    seed: int
    asked: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    names: dict[int, str] = field(default_factory=dict)

    def add_name(self, number: int, name: str) -> None:
        """Name a request that the seed does not decide."""
        self.names[number] = name

    def add(self, number: int, what: str, request: FuzzRequest | None = None) -> None:
        """Note a failure, with the command that repeats it."""
        again = self.names.get(number) or f"python -m tests.fuzz --seed {self.seed} --only {number}"
        self.failures.append(f"{what}\n  {request or ''}\n  {again}")


async def fuzz(seed: int, numbers: Iterable[int], *, with_worst: bool = False) -> Findings:
    """Make the requests with these numbers on the present kind of database; stop after many failures.

    `with_worst` says whether those of `tests.fuzz.worst` are made before, one after the other.
    """
    findings = Findings(seed)
    with tempfile.TemporaryDirectory() as folder, _captured_log() as log:
        async with fuzzed_service(Path(folder)) as service:
            runner = _Runner(service, findings, iter(numbers))
            start_garbage_collection()  # as the service does: what exists already is not looked through again
            with LoopWatchdog(runner.note_stall).watching():
                if with_worst:
                    await runner.ask_worst()
                await asyncio.gather(*(runner.work() for _ in range(AT_ONCE)))
    _check_log(log.getvalue(), findings)
    return findings


@contextlib.contextmanager
def _captured_log() -> Iterator[io.StringIO]:
    configure_logging("text", "info")
    log = io.StringIO()
    with contextlib.redirect_stderr(log):
        yield log


def _check_log(log: str, findings: Findings) -> None:
    for what in ("Traceback", MARK, *PLANTED):
        at = log.find(what)
        if at >= 0:
            findings.failures.append(f"the log has {what[:12]}:\n{log[max(0, at - 500) : at + _LOG_SHOWN]}")


class _Runner:
    def __init__(self, service: FuzzedService, findings: Findings, numbers: Iterator[int]) -> None:
        self._service = service
        self._findings = findings
        self._numbers = numbers
        self._now: dict[int, FuzzRequest] = {}

    async def work(self) -> None:
        for number in self._numbers:
            if len(self._findings.failures) >= _MOST_FAILURES:
                return
            await self._ask(number)

    async def _ask(self, number: int) -> None:
        service, findings = self._service, self._findings
        await self._check(number, make_request(findings.seed, number, service.ids, service.keys))

    async def ask_worst(self) -> None:
        """Make the requests that take longest, one after the other: each alone may not hold the loop."""
        for number, (name, request) in enumerate(worst_requests(self._service.ids), 1):
            self._findings.add_name(-number, name)
            await self._check(-number, request)
            await asyncio.sleep(0.1)  # the watchdog's turn

    async def _check(self, number: int, request: FuzzRequest) -> None:
        service, findings = self._service, self._findings
        self._now[number] = request
        try:
            answer = await service.call(request)
        except Exception as error:
            findings.add(
                number, f"{type(error).__name__}: {''.join(traceback.format_exception(error))[-2000:]}", request
            )
        else:
            findings.statuses[answer.status] += 1
            for claim in broken_claims(request, answer):
                findings.add(number, f"{claim}: {answer.status} {answer.body[:300]!r}", request)
        finally:
            findings.asked += 1
            del self._now[number]

    def note_stall(self, stall: Stall) -> None:
        """Note that the loop computed for too long. Time in which it only waited is that of a busy machine."""
        if stall.cpu_seconds > LONGEST_SECONDS:
            asked = "\n  ".join(f"{number}: {request}" for number, request in self._now.items())
            places = "\n  ".join(stall.stack[-8:])
            self._findings.add(
                next(iter(self._now), 0), f"the loop computed for {stall.cpu_seconds:.2f} s at\n  {places}\n  {asked}"
            )
