"""`ringback run` for people: the table of steps, the live table during a wait, and the exit status."""

from typing import Any

import pytest

from receiver.cli import progress
from receiver.cli.failure import Status
from receiver.cli.progress import run_progress
from receiver.cli.show import print_run
from receiver.cli.waiting import end_status

STEP = {"action": "campaigns.generate", "provider": "fal", "job_id": "t1", "result": None, "error": None}
RUN: dict[str, Any] = {
    "id": "r1",
    "status": "failed",
    "metadata": {"order": 17},
    "created_at": 1760000000,
    "updated_at": 1760000100,
    "steps": [
        {**STEP, "id": "one", "status": "completed", "started_at": 1760000000, "completed_at": 1760000042,
         "result": {"result_url": "https://cdn.example.com/a.png"}},
        {**STEP, "id": "two", "status": "failed", "started_at": 1760000042, "completed_at": 1760000050,
         "error": {"code": 7, "message": "[red]out of paint"}},
        {**STEP, "id": "three", "status": "skipped", "started_at": None, "completed_at": None, "job_id": None,
         "error": {"code": "skipped", "message": "step 'two' did not complete"}},
    ],
}  # fmt: skip


def test_a_run_is_printed_with_a_row_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(RUN)
    fields, _, table = capsys.readouterr().out.partition("\n\n")
    assert "2025-10-09T08:53:20Z" in fields
    one, two, three = (line.split() for line in table.splitlines()[1:])
    assert one == ["one", "campaigns.generate", "fal", "completed", "42", "s", "t1", "https://cdn.example.com/a.png"]
    assert two[-3:] == ["[red]out", "of", "paint"]
    assert three[:6] == ["three", "campaigns.generate", "fal", "skipped", "-", "-"]


def test_a_run_with_nothing_but_an_id_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_run({"id": "r1"})
    assert capsys.readouterr().out.split() == ["run", "r1"]


def test_a_person_who_watches_sees_the_steps_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "watched", lambda _as_json: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    under_way = {**STEP, "id": "four", "status": "processing", "started_at": 1760000000, "completed_at": None}
    with run_progress(False) as on_update:
        on_update({**RUN, "steps": [*RUN["steps"], under_way]})
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "processing" in printed.err
    assert "[red]out of paint" in printed.err


def test_without_a_person_who_watches_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with run_progress(True) as on_update:
        on_update(RUN)
    assert capsys.readouterr() == ("", "")


def test_the_exit_status_follows_from_the_last_state() -> None:
    assert end_status([{"status": "completed"}]) is Status.DONE
    assert end_status([{"status": "failed"}]) is end_status([{"status": "cancelled"}]) is Status.TASK_FAILED
    assert end_status([{"status": "in_progress"}]) is end_status([{}]) is Status.TIMED_OUT
