"""Exceptions of the log are reported to Sentry, without what could hold a secret."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import SettingsError
from receiver.stop_bound import StopBound
from receiver.telemetry.exporting import check_exports, exporting
from receiver.telemetry.log import configure_logging, get_logger
from receiver.tracking.tracker import Tracker
from tests.fakes.collectors import sentry_server
from tests.fakes.world import API_KEY, in_process

PLANTED = "planted-token-Wq8xZr3T"
log = get_logger("tests.error_reports")


@pytest.fixture(autouse=True)
def without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    configure_logging()
    yield
    configure_logging()


async def test_an_unexpected_exception_is_reported_with_ids_and_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        held = f"{PLANTED} in a variable"
        raise ValueError(f"the reason\n{held}")

    monkeypatch.setattr(Tracker, "create", broken)
    monkeypatch.setenv("SENTRY_RELEASE", "1.2.3-ours")
    monkeypatch.setenv("SENTRY_ENVIRONMENT", "staging")
    async with sentry_server() as sentry, in_process(tmp_path, sentry_dsn=sentry.url) as world:
        answer = await world.create(input={"prompt": PLANTED})
        assert answer.status_code == 500
        await sentry.until(len)

    ((text, event),) = sentry.items
    assert (event["logentry"]["message"], event["level"], event["logger"]) == (
        "request failed",
        "error",
        "api.request_errors",
    )
    assert event["tags"]["request_id"] == answer.headers["x-request-id"]
    assert (event["release"], event["environment"]) == ("1.2.3-ours", "staging")
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ValueError", "the reason")
    assert exception["stacktrace"]["frames"][-1]["function"] == "broken"
    assert all("vars" not in frame for frame in exception["stacktrace"]["frames"])
    assert not {"request", "user", "breadcrumbs", "modules"} & event.keys()
    assert PLANTED not in text
    assert API_KEY not in text


@pytest.mark.no_database("logs alone")
async def test_what_waits_is_sent_at_the_stop_and_no_other_record_is_sent() -> None:
    async with sentry_server() as sentry:
        log.error("before", exc_info=ValueError("too early"))
        async with exporting(StopBound(), tracing=False, sentry_dsn=sentry.url):
            log.warning("a warning", exc_info=ValueError("expected"))
            log.error("without an exception", task_id="t1")
            try:
                raise KeyError("k")
            except KeyError:
                log.error("an error", task_id="t2", attempt=1, exc_info=True)
        log.error("after", exc_info=ValueError("too late"))
    (event,) = [event for _, event in sentry.items]
    assert (event["logentry"]["message"], event["tags"]) == ("an error", {"task_id": "t2"})
    assert event["release"].startswith("ringback@")


@pytest.mark.no_database("starts nothing")
@pytest.mark.parametrize("dsn", ["nonsense-Wq8xZr3T", "https://Wq8xZr3T@host", "ftp://Wq8xZr3T@host/1"])
def test_a_wrong_dsn_stops_the_start_and_is_not_repeated(dsn: str) -> None:
    with pytest.raises(SettingsError, match="RINGBACK_SENTRY_DSN: not a DSN") as caught:
        check_exports(tracing=False, sentry_dsn=dsn)
    assert "Wq8xZr3T" not in str(caught.value)
