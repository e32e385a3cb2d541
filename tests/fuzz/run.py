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
from receiver.telemetry.log import configure_logging
from tests.fuzz.claims import broken_claims
from tests.fuzz.requests import ACCEPTABLE, FuzzRequest, make_request
from tests.fuzz.service import MARK, PLANTED, FuzzedService, fuzzed_service
from tests.fuzz.worst import worst_requests

AT_ONCE = 8
_MOST_FAILURES = 20
_LOG_SHOWN = 3000
_RENEWED_EVERY = 250
_OF_ONE_SERVICE = 5000
"""After this many requests a new service with an empty database is asked: what each of them makes would slow all."""
_ENOUGH = 5000
"""With this many requests, every route must have accepted one."""


@dataclass
class Findings:
    """What was asked, and what did not hold."""

    asked: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    """How many requests of each route were not refused."""
    failures: list[str] = field(default_factory=list)


async def fuzz(seed: int, numbers: Iterable[int], *, with_worst: bool = False) -> Findings:
    """Make the requests with these numbers on the present kind of database; stop after many failures.

    `with_worst` says whether those of `tests.fuzz.worst` are made before, one after the other.
    """
    findings, left = Findings(), list(numbers)
    while left and len(findings.failures) < _MOST_FAILURES:
        portion, left = left[:_OF_ONE_SERVICE], left[_OF_ONE_SERVICE:]
        await _fuzz_one(seed, portion, findings, with_worst=with_worst and not findings.asked)
        if left:
            print(f"{findings.asked} requests, {len(left)} to go, {len(findings.failures)} failures", flush=True)
    if findings.asked >= _ENOUGH:
        findings.failures += [f"no request to {route} was accepted" for route in never_accepted(findings)]
    return findings


async def _fuzz_one(seed: int, numbers: Iterable[int], findings: Findings, *, with_worst: bool) -> None:
    """Make requests to one service with a database of its own."""
    with tempfile.TemporaryDirectory() as folder, _captured_log() as log:
        async with fuzzed_service(Path(folder)) as service:
            runner = Runner(service, findings, seed, iter(numbers))
            start_garbage_collection()  # as the service does: what exists already is not looked through again
            with LoopWatchdog(runner.note_stall).watching():
                if with_worst:
                    await runner.ask_worst()
                await asyncio.gather(*(runner.work() for _ in range(AT_ONCE)))
                await runner.renew()
    _check_log(log.getvalue(), findings)


def never_accepted(findings: Findings) -> list[str]:
    """Return the routes of which every request was refused: what they do otherwise was not tried."""
    return sorted(ACCEPTABLE - findings.accepted.keys())


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


class Runner:
    """Makes the requests of a fuzz, and notes in `findings` what does not hold."""

    def __init__(self, service: FuzzedService, findings: Findings, seed: int, numbers: Iterator[int]) -> None:
        self._service = service
        self._findings = findings
        self._seed = seed
        self._numbers = numbers
        self._now: dict[str, FuzzRequest] = {}
        self._renewing = asyncio.Lock()

    async def work(self) -> None:
        """Make one request after the other, as long as there are more and not many have failed."""
        for number in self._numbers:
            if len(self._findings.failures) >= _MOST_FAILURES:
                return
            if number % _RENEWED_EVERY == 0:
                await self.renew()
            request = make_request(self._seed, number, self._service.ids, self._service.keys)
            await self._check(f"python -m tests.fuzz --seed {self._seed} --only {number}", request)

    async def renew(self) -> None:
        """Make again what was removed; at the end it shows that the service still works."""
        try:
            async with self._renewing:
                await self._service.renew()
        except (AssertionError, TimeoutError) as error:
            self._findings.failures.append(f"the service makes nothing any more: {error}")

    async def ask_worst(self) -> None:
        """Make the requests that take longest, one after the other: each alone may not hold the loop."""
        for name, request in worst_requests(self._service.ids):
            await self._check(name, request)
            await asyncio.sleep(0.1)  # the watchdog's turn

    async def _check(self, again: str, request: FuzzRequest) -> None:
        """Make a request and note what does not hold; `again` is the command that repeats it, or its name."""
        findings = self._findings
        self._now[again] = request
        try:
            answer = await self._service.call(request)
        except Exception as error:
            trace = "".join(traceback.format_exception(error))[-2000:]
            findings.failures.append(f"{type(error).__name__}: {trace}\n  {request}\n  {again}")
        else:
            findings.statuses[answer.status] += 1
            if 200 <= answer.status < 300 and request.route:
                findings.accepted[request.route] += 1
            for claim in broken_claims(request, answer):
                findings.failures.append(f"{claim}: {answer.status} {answer.body[:300]!r}\n  {request}\n  {again}")
        finally:
            findings.asked += 1
            del self._now[again]

    def note_stall(self, stall: Stall) -> None:
        """Note that the loop computed for too long. Time in which it only waited is that of a busy machine."""
        if stall.cpu_seconds > LONGEST_SECONDS:
            asked = "\n  ".join(f"{again}: {request}" for again, request in self._now.items())
            places = "\n  ".join(stall.stack[-8:])
            self._findings.failures.append(f"the loop computed for {stall.cpu_seconds:.2f} s at\n  {places}\n  {asked}")
