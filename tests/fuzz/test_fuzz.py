"""Five thousand requests of every kind, and that the claims about answers can be broken."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from receiver.loop_watchdog import Stall
from tests.fuzz.claims import broken_claims
from tests.fuzz.requests import ACCEPTABLE, FuzzRequest, Ids
from tests.fuzz.run import Findings, Runner, never_accepted
from tests.fuzz.service import MARK, PLANTED, Answer, FuzzedService

ROOT = Path(__file__).parents[2]
COUNT, SEED = 5000, 12
REQUEST = FuzzRequest("GET", "/api/v1/tasks", b"", (), b"", "admin", "10.0.0.1")


@pytest.mark.long
@pytest.mark.sqlite_only("the whole fuzz, on both databases, is part of make prove")
async def test_whatever_is_asked_every_claim_holds(tmp_path: Path) -> None:
    # In a process of its own: it refuses all look-ups of names, and measures its own event loop.
    fuzz = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz", "--count", str(COUNT), "--seed", str(SEED)),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await fuzz.communicate()
    assert fuzz.returncode == 0, told.decode()[-5000:]
    assert f"{COUNT} requests" in told.decode()


@pytest.mark.no_database("no service is asked")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"error":{"type":"api_error","code":"internal_error","message":"m"}}'),
        (504, b'{"error":{"type":"api_error","code":"other","message":"m"}}'),
        (400, b"not JSON"),
        (400, b'{"detail":"of another form"}'),
        (400, b'{"code":400,"data":null,"message":"%b"}' % (b"x" * 100_000)),
        (200, f"the {MARK}".encode()),
        (200, PLANTED[0].encode()),
        (0, b""),
    ],
)
def test_each_claim_can_be_broken(status: int, body: bytes) -> None:
    assert list(broken_claims(REQUEST, Answer(status, {}, body, is_stream=False)))


@pytest.mark.no_database("no service is asked")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{}"),
        (503, b'{"error":{"type":"api_error","code":"writer_full","message":"m"}}'),
        (504, b'{"code":504,"data":null,"message":"m","error":"outcome_unknown"}'),
        (404, b'{"code":404,"data":null,"message":"m"}'),
    ],
)
def test_an_honest_answer_breaks_none(status: int, body: bytes) -> None:
    assert list(broken_claims(REQUEST, Answer(status, {}, body, is_stream=False))) == []


class BrokenService(FuzzedService):
    """Answers everything with an error, but for what it is asked to make: that it does not answer at all."""

    def __init__(self) -> None:
        self.ids = Ids({}, {}, {})

    async def renew(self) -> None:
        """Raise what the real one raises when nothing is made any more."""
        raise AssertionError("POST /api/v1/task: 503")


@pytest.mark.no_database("no service is asked")
async def test_a_service_that_refuses_everything_or_stands_still_is_found() -> None:
    findings = Findings()
    runner = Runner(BrokenService(), findings, 1, iter(()))
    await runner.renew()
    runner.note_stall(Stall(0.5, 0.1, ()))  # it waited for a processor
    assert [text.partition(":")[0] for text in findings.failures] == ["the service makes nothing any more"]
    runner.note_stall(Stall(0.5, 0.4, ("a.py:1 held",)))
    assert "held" in findings.failures[-1]
    findings.accepted.update(ACCEPTABLE - {"PATCH /api/v1/webhooks/{webhook_id}"})
    assert never_accepted(findings) == ["PATCH /api/v1/webhooks/{webhook_id}"]
