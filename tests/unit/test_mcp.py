"""What the tools for agents do with answers of any size and kind, and without the package `mcp`."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from receiver.mcp import calls as calls_module
from receiver.mcp.calls import ApiCalls, ToolFailure
from receiver.mcp.remote import RemoteApi
from receiver.mcp.service_api import ApiAnswer, ApiRequest, NotReached
from receiver.mcp.shortening import shortened, size_of
from tests.fakes.command_line import app

MOST = 4_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=1_000),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=20), inner, max_size=20),
    max_leaves=40,
)
MEMBERS = st.dictionaries(st.sampled_from(["task_id", "input", "output", "error", "logs"]), JSON)


@given(MEMBERS)
def test_what_is_cut_is_small_and_keeps_its_members(value: dict[str, Any]) -> None:
    cut, is_cut = shortened(value, size_of(value), MOST)
    assert cut.keys() == value.keys()
    assert is_cut == (size_of(value) > MOST)
    assert size_of(cut) <= MOST or all(not isinstance(each, dict | list) or not each for each in cut.values())
    assert is_cut or cut == value


def test_deep_and_wide_values_are_cut() -> None:
    deep: Any = "x" * 5_000
    for _ in range(90):
        deep = {"in": [deep]}
    cut, is_cut = shortened({"output": deep, "wide": list(range(100_000))}, 1_000_000, MOST)
    assert (is_cut, size_of(cut) < MOST, cut["wide"][-1]) == (True, True, "(cut: 100000 items)")


class ScriptedApi:
    """Gives these answers, one after the other; None stands for a service that is not reached."""

    is_ending = False

    def __init__(self, answers: Sequence[ApiAnswer | None]) -> None:
        self.answers = list(answers)
        self.sent: list[ApiRequest] = []

    async def scope(self) -> str | None:
        return None

    async def send(self, request: ApiRequest) -> ApiAnswer:
        self.sent.append(request)
        if (answer := self.answers.pop(0)) is None:
            raise NotReached("cannot reach it")
        return answer


def answer(status: int = 200, body: Any = None, **headers: str) -> ApiAnswer:
    return ApiAnswer(status, orjson.dumps({"data": {}} if body is None else body), headers)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "_PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("impatient")
async def test_a_post_that_got_no_answer_is_repeated_with_the_same_key() -> None:
    api = ScriptedApi([answer(), None, answer(503), answer(504), answer()])
    calls = ApiCalls(api)
    await calls.get("/api/v1/tasks")
    await calls.post("/api/v1/task", {"model": "m"})
    keys = {(request.headers or {})["idempotency-key"] for request in api.sent[1:]}
    assert (len(api.sent), len(keys)) == (5, 1)


async def test_a_service_that_never_answered_is_reported_at_once() -> None:
    with pytest.raises(ToolFailure, match="cannot reach it") as failure:
        await ApiCalls(ScriptedApi([None])).post("/api/v1/task", {})
    assert failure.value.may_be_done


async def test_a_service_that_stops_is_asked_once() -> None:
    api = ScriptedApi(
        [answer(503, {"error": {"message": "the service stops", "code": "unavailable"}}, **{"retry-after": "5"})]
    )
    api.is_ending = True
    with pytest.raises(
        ToolFailure, match=r"the service stops\. What to do: try again in 5 s \(HTTP 503, unavailable\)"
    ):
        await ApiCalls(api).get("/api/v1/tasks")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (answer(402, {"code": 402, "data": None, "message": "no credit."}), r"no credit\. What to do: .*credit.*402"),
        (answer(429, {"error": {"message": "slow"}}, **{"retry-after": "7"}), "slow.*try again in 7 s"),
        (answer(401, {"error": {"message": "wrong key", "code": "invalid_api_key"}}), "wrong key.*RINGBACK_API_KEY"),
        (answer(400, {"error": {"message": "a", "issues": [{"param": "steps[0]", "message": "b"}]}}), r"steps\[0\]: b"),
        (answer(200, ["a page"]), "not Ringback"),
        (answer(599, None), "HTTP 599"),
        (answer(500, {"error": "x" * 9_000, "message": "y" * 9_000}), "^y{2000} "),
    ],
)
async def test_a_failure_says_what_is_wrong_and_what_to_do(given: ApiAnswer, words: str) -> None:
    with pytest.raises(ToolFailure, match=words):
        await ApiCalls(ScriptedApi([given])).get("/api/v1/tasks")


async def test_the_scope_of_the_key_is_asked_for_once_it_can_be_known() -> None:
    answers = [httpx.Response(503), httpx.Response(200, text="a page"), httpx.Response(200, json={"data": {}})]
    answers.append(httpx.Response(200, json={"data": {"key": {"scope": "read"}}}))
    transport = httpx.MockTransport(lambda _request: answers.pop(0))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9") as client:
        api = RemoteApi(client)
        assert [await api.scope() for _ in range(5)] == [None, None, None, "read", "read"]


async def test_what_the_connection_does_is_told_in_plain_words() -> None:
    errors = [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.ReadError("x")]

    def fail(_request: httpx.Request) -> httpx.Response:
        raise errors.pop(0)

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail), base_url="http://127.0.0.1:9/x") as client:
        for words in ("cannot reach http://127.0.0.1:9/x: start", "did not respond", "was lost"):
            with pytest.raises(NotReached, match=words):
                await RemoteApi(client).send(ApiRequest("GET", "/api/v1/tasks"))


async def test_without_the_package_the_command_says_in_one_line_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    for name in [name for name in sys.modules if name.startswith(("mcp.", "receiver.mcp.s"))]:
        monkeypatch.delitem(sys.modules, name)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["mcp"], env={"RINGBACK_API_KEY": "rb_tests_Zq7vW3kX"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ringback: it is not installed")
    assert result.stderr.endswith("pip install 'ringback[mcp]'\n")
    assert result.stderr.count("\n") == 1
