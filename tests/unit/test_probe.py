"""The token of a probe: only this installation's, for one id and one minute."""

import asyncio
import hashlib
from typing import Any

import pytest

from receiver.domain.keyring import PROBE_SECONDS, KeyRing
from receiver.events.after_commit import Waiting
from receiver.inbound.probe import ProbeEndpoint

OLD, NEW = "Kc5Vx8TqWm2Zr7HyLd4PgJ9nBf3sXe6u", "Wm8Tq2Zr7HyLd4PgJ9nBf3sXe6uKc5Vx"
NOW = 1_800_000_000.7


def test_a_token_is_good_for_its_id_and_its_time() -> None:
    keyring = KeyRing([OLD, NEW])
    token = keyring.probe_token("a-Probe_1", NOW)
    assert keyring.verify_probe("a-Probe_1", token, NOW)
    assert keyring.verify_probe("a-Probe_1", token, NOW - PROBE_SECONDS + 1)  # the doctor's clock is ahead
    assert keyring.verify_probe("a-Probe_1", token, NOW + PROBE_SECONDS - 1)
    assert not keyring.verify_probe("a-Probe_1", token, NOW + PROBE_SECONDS)
    assert not keyring.verify_probe("a-probe_1", token, NOW)


def test_every_master_key_verifies_and_no_other_does() -> None:
    token = KeyRing([OLD]).probe_token("p", NOW)
    assert KeyRing([OLD, NEW]).verify_probe("p", token, NOW)
    assert not KeyRing([NEW]).verify_probe("p", token, NOW)


def test_neither_a_later_end_nor_a_hook_s_secret_is_a_token() -> None:
    keyring = KeyRing([NEW])
    token = keyring.probe_token("p", NOW)
    until, _, signature = token.partition(".")
    assert not keyring.verify_probe("p", f"{int(until) + 1}.{signature}", NOW)
    assert not keyring.verify_probe("p", f"{until}.{keyring.hook_secret(f'p.{until}')}", NOW)
    far = KeyRing([NEW]).probe_token("p", NOW + 10 * PROBE_SECONDS)
    assert not keyring.verify_probe("p", far, NOW)


@pytest.mark.parametrize(
    "presented", ["", ".", "1", "é.x", f"{'9' * 13}.{'a' * 43}", f"1.{'a' * 44}", f"1.{'a' * 43}\n"]
)
def test_what_is_no_token_is_refused(presented: str) -> None:
    assert not KeyRing([NEW]).verify_probe("p", presented, NOW)
    assert not KeyRing([NEW]).verify_probe("é", presented, NOW)


async def test_a_probe_that_is_held_is_answered_when_the_service_stops() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    waiting = Waiting()
    scope = {"type": "http", "query_string": b"hold=30", "headers": [], "scheme": "http", "http_version": "1.1"}
    answering = asyncio.create_task(
        ProbeEndpoint(KeyRing([NEW]), waiting, max_body_bytes=1024).answer("p", scope, receive)
    )
    async with asyncio.timeout(10):
        await waiting.watched.wait()
        assert not answering.done()
        waiting.close()
        seen = await answering
    assert seen["body"] == {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
