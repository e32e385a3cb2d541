"""`task create --bulk` without a service: how lines are put into requests, and retries of unanswered requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from receiver.cli import bulk
from receiver.cli.failure import Failure, ServiceUnreachable, Status


class Client:
    """Accepts every task that is an object; the first `unanswered` requests after the first one fail."""

    def __init__(self, unanswered: int = 0) -> None:
        self.calls: list[list[Any]] = []
        self.keys: list[str] = []
        self._unanswered = unanswered
        self._ids: Iterator[int] = iter(range(1_000_000))

    def call(self, method: str, path: str, *, body: Any, headers: dict[str, str]) -> Any:
        assert (method, path) == ("POST", "/api/v1/tasks")
        self.keys.append(headers["Idempotency-Key"])
        if self.calls and self._unanswered:
            self._unanswered -= 1
            raise ServiceUnreachable("no answer")
        self.calls.append(body["tasks"])
        return {"object": "list", "data": [self._answer(*each) for each in enumerate(body["tasks"])]}

    def _answer(self, index: int, task: Any) -> dict[str, Any]:
        if isinstance(task, dict):
            return {"index": index, "task_id": f"t{next(self._ids)}"}
        return {"index": index, "error": {"code": "invalid_request_body", "message": "no object", "param": "x"}}


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_PAUSE_SECONDS", 0.0)


def create(tmp_path: Path, client: Client, *lines: bytes, as_json: bool = False) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_bytes(b"\n".join(lines))
    bulk.create_bulk(client, str(file), as_json)  # type: ignore[arg-type]


def test_a_request_has_at_most_a_thousand_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client()
    create(tmp_path, client, *[b"{}"] * 2001)
    assert [len(call) for call in client.calls] == [1000, 1000, 1]
    assert len(set(client.keys)) == 3
    assert capsys.readouterr().out.split() == [f"t{number}" for number in range(2001)]


def test_a_request_is_not_larger_than_the_service_accepts(tmp_path: Path) -> None:
    client = Client()
    line = orjson.dumps({"input": "x" * 3_000_000})
    create(tmp_path, client, *[line] * 5)
    assert [len(call) for call in client.calls] == [2, 2, 1]


def test_refused_lines_are_reported_by_number_and_the_others_created(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failure, match="2 of 4 lines were refused") as caught:
        create(tmp_path, Client(), b"{}", b"", b"{not json", b"7", b"   ", b"{}")
    assert caught.value.status == Status.TASK_FAILED
    out, err = capsys.readouterr()
    assert out.split() == ["t0", "t1"]
    assert [line.partition(":")[2].split(":")[0] for line in err.splitlines()] == [" line 3", " line 4"]


def test_json_has_the_result_of_each_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failure):
        create(tmp_path, Client(), b"{}", b"7", as_json=True)
    out, _ = capsys.readouterr()
    assert orjson.loads(out) == {
        "object": "list",
        "data": [
            {"line": 1, "task_id": "t0"},
            {"line": 2, "error": {"code": "invalid_request_body", "message": "no object", "param": "x"}},
        ],
    }


def test_a_file_of_bad_lines_alone_sends_no_request(tmp_path: Path) -> None:
    client = Client()
    with pytest.raises(Failure, match="1 of 1"):
        create(tmp_path, client, b"{")
    assert client.calls == []


def test_a_request_that_got_no_answer_is_repeated_with_the_same_key(tmp_path: Path) -> None:
    client = Client(unanswered=3)
    create(tmp_path, client, *[b"{}"] * 1001)
    assert [len(call) for call in client.calls] == [1000, 1]
    assert len(set(client.keys[1:])) == 1


def test_created_tasks_are_printed_even_if_the_service_stays_unreachable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "OUTAGE_SECONDS", 0.0)
    with pytest.raises(ServiceUnreachable):
        create(tmp_path, Client(unanswered=9), *[b"{}"] * 1001, as_json=True)
    assert len(orjson.loads(capsys.readouterr().out)["data"]) == 1000


def test_the_first_request_is_not_repeated(tmp_path: Path) -> None:
    class Unreachable(Client):
        def call(self, *_: Any, **__: Any) -> Any:
            raise ServiceUnreachable("no answer")

    with pytest.raises(ServiceUnreachable):
        create(tmp_path, Unreachable(), b"{}")


def test_each_of_several_files_that_were_joined_may_begin_with_a_mark(tmp_path: Path) -> None:
    client = Client()
    create(tmp_path, client, *["\ufeff{}".encode()] * 2)
    assert client.calls == [[{}, {}]]
