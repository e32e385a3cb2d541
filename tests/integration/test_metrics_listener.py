"""Metrics and health on a listener of their own, and the headers that every answer has."""

import asyncio
import socket
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from receiver.api.health import Health
from receiver.app import create_app
from receiver.errors import StartError, StorageUnavailable
from receiver.serving.metrics_listener import MetricsServer, fault_of_loop, metrics_listening
from receiver.setting_values import read_listen_address
from tests.fakes.servers import served
from tests.fakes.world import World, in_process


@pytest.mark.no_database("one thread and one loop")
async def test_it_answers_while_the_services_loop_is_held_up() -> None:
    async def ready() -> str | None:
        return None

    with metrics_listening("127.0.0.1:0") as listening:
        health = Health(fault_of_loop(asyncio.get_running_loop(), ready), lambda: b"metrics", None)
        server = MetricsServer(health, listening)
        server.start()
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=base) as client:
                assert (await client.get("/readyz")).json() == {"status": "ready"}
            found: list[int] = []
            # This thread's loop does nothing while the other thread asks.
            asking = threading.Thread(target=lambda: found.extend(_statuses(base, "/livez", "/metrics")))
            asking.start()
            asking.join(20)
            assert found == [200, 200]
        finally:
            server.stop()


def _statuses(base: str, *paths: str) -> list[int]:
    with httpx.Client(base_url=base, timeout=15) as client:
        return [client.get(path).status_code for path in paths]


@pytest.mark.no_database("only sockets")
def test_a_socket_that_a_killed_process_left_is_replaced_and_one_in_use_or_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path))
    with metrics_listening(str(path)), pytest.raises(StartError, match="another process"), metrics_listening(str(path)):
        pass
    path.write_text("a file")
    with pytest.raises(StartError, match="RINGBACK_METRICS_ADDRESS"), metrics_listening(str(path)):
        pass
    assert path.read_text() == "a file"


@pytest.mark.no_database("only text")
@pytest.mark.parametrize(
    "text", ["", "9464", "host:", ":9464", "host:70000", "a b:1x", "user@host:1", "host:1/path", "relative/path"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        read_listen_address(text)


@pytest.mark.no_database("only text")
def test_addresses_are_read() -> None:
    assert read_listen_address("127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert read_listen_address("[::1]:0") == ("::1", 0)
    assert read_listen_address("/run/metrics.sock") == Path("/run/metrics.sock")


async def test_every_answer_says_that_it_is_no_page_and_is_not_to_be_kept(world: World) -> None:
    anonymous = {"x-api-key": ""}
    task_id = await world.created()
    answers = [
        await world.api.get("/livez"),
        await world.api.get("/readyz"),
        await world.api.get("/metrics"),
        await world.api.get(f"/api/v1/task/{task_id}"),
        await world.api.get("/api/v1/tasks"),
        await world.api.get("/api/v1/tasks", headers=anonymous),
        await world.api.get("/nothing"),
        await world.api.delete("/livez"),
        await world.api.post("/hooks/piapi", content=b"{}"),
        await world.api.post("/api/v1/task", content=b"not json"),
        await world.api.get("/v1/models"),
    ]
    for answer in answers:
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], answer.url
        assert len(answer.headers.get_list("cache-control")) == 1, answer.url
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


async def test_a_bug_is_answered_in_plain_words_with_these_headers(tmp_path: Path) -> None:
    async with in_process(tmp_path) as world:
        app = create_app(world.settings, ["a-master-key-for-tests"])

        class Broken:
            async def readyz(self, _request: object) -> None:
                raise ValueError("a secret in a traceback")

        async with served(app) as url, httpx.AsyncClient(base_url=url) as client:
            app.state.health = Broken()
            answer = await client.get("/readyz")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


async def test_an_unavailable_database_is_answered_in_plain_words_and_the_drivers_are_in_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def unavailable(*_: object) -> None:
        raise StorageUnavailable(
            "the database cannot be read at present; try again", reason="no pg_hba entry for host-7"
        )

    monkeypatch.setattr("receiver.storage.database.Database.read", unavailable)
    answer = await world.api.get("/api/v1/tasks")
    assert answer.status_code == 503
    assert "host-7" not in answer.text
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "host-7" in line and "request" in line]
    assert answer.headers["x-request-id"] in line
