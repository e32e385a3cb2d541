"""A long poll while it waits: what ends the wait, and what it holds meanwhile."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from starlette.types import Message, Scope

from models import Scope as Scopes
from receiver.api.dialects import NATIVE, Reply
from receiver.api.keys_in_use import NO_KEY, Principal
from receiver.api.long_poll import Caller, Later, LongPoll
from receiver.api.refusal_lines import RefusalLines
from receiver.asgi import AFTERWARDS, Afterwards, see_answer
from receiver.body_budget import BodyBudget
from receiver.errors import Unavailable
from receiver.events import after_commit
from receiver.events.after_commit import Waiting
from receiver.events.wakeable import LEAVER, TimeOuts
from receiver.telemetry.metrics import counted, exceptions


class Row(dict[str, Any]):
    """A row that can be watched."""


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_holds_no_row_while_it_waits() -> None:
    waiting = Waiting()
    read: list[weakref.ref[Row]] = []

    async def read_row() -> Row:
        row = Row(status="pending" if len(read) < 1 else "completed")
        read.append(weakref.ref(row))
        return row

    gc.disable()
    try:
        polling = asyncio.create_task(waiting.read_until("a", 30, read_row, lambda row: row["status"] == "completed"))
        await turns()
        assert [row() for row in read] == [None]
    finally:
        gc.enable()
    waiting.wake("a")
    assert (await polling)["status"] == "completed"


async def test_a_change_before_the_wait_ends_it_and_the_next_one_begins_anew() -> None:
    waiting = Waiting()
    with waiting.watch("a") as watch:
        waiting.wake("a")
        assert await watch.changed(30)
        assert not await watch.changed(0)
        assert not await watch.changed(-1)
        changing = asyncio.create_task(watch.changed(30))
        await turns()
        assert not changing.done()
        waiting.wake("a")
        assert await changing


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    waiting = Waiting()
    with waiting.watch("a") as watch:
        changing = asyncio.create_task(watch.changed(30))
        await turns()
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        waiting.wake("a")
        assert await watch.changed(0)
    assert not waiting.watched.is_set()


async def test_of_several_those_that_changed_are_told_also_if_they_did_before_the_wait() -> None:
    waiting = Waiting()
    with waiting.watch_several(["a", "b", "c"]) as watch:
        waiting.wake("a")
        waiting.wake("c")
        assert await watch.changed(30) == {"a", "c"}
        changing = asyncio.create_task(watch.changed(30))
        await turns()
        assert not changing.done()
        waiting.wake("b")
        assert await changing == {"b"}
        changing = asyncio.create_task(watch.changed(30))
        await turns()
        waiting.close()
        assert await changing == {"a", "b", "c"}
    assert not waiting.watched.is_set()


async def test_of_several_all_are_read_again_when_nothing_has_woken_the_wait_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(after_commit, "_REREAD_SECONDS", 0.02)
    waiting, uids = Waiting(), ["a", "b"]
    with waiting.watch_several(uids) as watch:
        assert await watch.changed(30) is uids
        assert await watch.changed(-1) is uids


async def test_waits_for_several_tasks_and_for_one_end_by_the_same_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, loop = Waiting(), asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def noting(when: float, *given: Any, **more: Any) -> Any:
        timers.append(when)
        return call_at(when, *given, **more)

    monkeypatch.setattr(loop, "call_at", noting)
    with waiting.watch("a") as one, waiting.watch_several(["a", "b"]) as two, waiting.watch_several(["b"]) as three:
        waits = [asyncio.ensure_future(each) for each in (one.changed(0.02), two.changed(0.03), three.changed(0.04))]
        await turns()
        assert (len(waiting.time_outs), len(timers)) == (3, 1)
        await asyncio.gather(*waits)
    assert len(waiting.time_outs) == 0


async def test_a_wait_for_several_that_is_cancelled_leaves_nothing_behind() -> None:
    waiting = Waiting()
    with waiting.watch_several(["a", "b", "a"]) as watch:
        changing = asyncio.create_task(watch.changed(30))
        await turns()
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        waiting.wake("b")
        assert await watch.changed(0) == {"b"}
    assert not waiting.watched.is_set()


async def noted(waiter: "asyncio.Future[None]", name: str, ended: list[str]) -> None:
    await waiter
    ended.append(name)


async def test_waits_end_in_the_order_of_their_times_also_those_that_began_later() -> None:
    time_outs, ended, loop = TimeOuts(), list[str](), asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for name, seconds in (("third", 0.06), ("first", 0.02), ("fourth", 0.06), ("second", 0.04), ("now", 0)):
            waiter = loop.create_future()
            time_outs.set(waiter, seconds)
            group.create_task(noted(waiter, name, ended))
    assert ended == ["now", "first", "second", "third", "fourth"]
    assert len(time_outs) == 0


async def test_time_outs_of_waits_that_have_ended_are_not_kept_until_their_times() -> None:
    time_outs, loop = TimeOuts(), asyncio.get_running_loop()
    going_on = [loop.create_future() for _ in range(3000)]
    for waiter in going_on:
        time_outs.set(waiter, 0.2)
    for _ in range(50_000):
        waiter = loop.create_future()
        time_outs.set(waiter, 60)
        waiter.set_result(None)
    assert len(time_outs) <= 2 * len(going_on) + 1
    await asyncio.gather(*going_on)  # removing the others has removed none of these
    for _ in range(50_000):
        waiter = loop.create_future()
        time_outs.set(waiter, 60)
        waiter.cancel()
    assert len(time_outs) <= 1024


async def test_a_poll_that_was_woken_is_not_woken_again_by_its_earlier_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_commit, "_REREAD_SECONDS", 0.2)
    waiting, reads = Waiting(), 0

    async def read() -> Row:
        nonlocal reads
        reads += 1
        return Row()

    poll = asyncio.create_task(waiting.read_until("a", 0.7, read, lambda _: False))
    for _ in range(6):
        await asyncio.sleep(0.02)
        waiting.wake("a")
    await poll
    assert reads <= 1 + 6 + 4


def test_what_is_left_of_a_wait_is_not_waited_for_in_parts_of_a_millisecond() -> None:
    async def reads(seconds: float) -> int:
        waiting, reads = Waiting(), 0

        async def read() -> Row:
            nonlocal reads
            reads += 1
            return Row()

        await waiting.read_until("a", seconds, read, lambda _: False)
        return reads

    async def of_many() -> list[int]:
        return await asyncio.gather(*(reads(0.02 + each * 0.00037) for each in range(100)))

    assert set(uvloop.run(of_many())) == {2}


class Rest:
    """What a server gives to what goes on with a response."""

    def __init__(self) -> None:
        self.leave: Callable[[], object] = list
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        """Keep a message."""
        self.sent.append(message)

    def when_gone(self, leave: Callable[[], None]) -> None:
        """Keep what is to be called."""
        self.leave = leave


def test_each_time_the_timer_runs_out_a_wait_ends_also_where_the_loop_s_time_goes_on_in_steps() -> None:
    class Counted(TimeOuts):
        """Counts how often its timer runs out."""

        ends = 0

        def _end_due(self) -> None:
            self.ends += 1
            super()._end_due()

    async def waits() -> int:
        time_outs, loop = Counted(), asyncio.get_running_loop()
        waiters = [loop.create_future() for _ in range(100)]
        for each, waiter in enumerate(waiters):
            time_outs.set(waiter, 0.02 + each * 0.00037)
        await asyncio.gather(*waiters)
        return time_outs.ends

    assert uvloop.run(waits()) <= 100


async def never(_caller: Caller) -> Reply:
    with Waiting().watch("a") as watch:
        await watch.changed(30)
    raise AssertionError("never")


async def never_of_several(_caller: Caller) -> Reply:
    with Waiting().watch_several(["a", "b"]) as watch:
        await watch.changed(30)
    raise AssertionError("never")


async def going_on(
    rest: Rest,
    reply: Callable[[Caller], Awaitable[Reply]] = never,
    *,
    reads: bool = True,
    stops: bool = False,
    budget: BodyBudget | None = None,
    way: Rest | None = None,
    is_seen: bool = False,
) -> "asyncio.Task[None]":
    """Begin to go on with a long poll, by default one whose reply never comes; return its task.

    Its request came by `way`; `is_seen`: a middleware has to see the answer there.
    """
    in_use = SimpleNamespace(hold=lambda _principal: contextlib.nullcontext())
    services: Any = SimpleNamespace(
        authenticator=SimpleNamespace(in_use=in_use),
        refusals=RefusalLines(),
        streams=SimpleNamespace(feed=SimpleNamespace(closed=stops)),
    )
    principal = Principal(1, "organization", Scopes.READ, NO_KEY, None, "key", None)
    poll = LongPoll(Later(reply), NATIVE, services, principal, budget, "req_1", None, path="/", reads=reads)
    given: list[Afterwards] = []
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "client": None,
        "extensions": {AFTERWARDS: {"go_on": given.append}},
    }
    if is_seen:
        see_answer(scope)
    await poll(scope, nothing, (way or rest).send)
    del way

    async def run() -> None:
        await given.pop()(rest)

    going = asyncio.create_task(run())
    await turns()
    return going


async def nothing() -> Message:
    raise AssertionError("nothing is received")


class Way(Rest):
    """The way on which a request came."""


@pytest.mark.parametrize("is_seen", [False, True])
async def test_the_way_of_the_request_is_held_and_used_only_where_a_middleware_has_to_see_the_answer(
    is_seen: bool,
) -> None:
    rest, way = Rest(), Way()
    going = await going_on(rest, reply_at_once, way=way, is_seen=is_seen)
    held, sent = weakref.ref(way), way.sent
    del way
    assert (held() is not None) == is_seen
    await going
    assert [len(rest.sent), len(sent)] == ([0, 2] if is_seen else [2, 0])


async def test_an_answer_that_no_middleware_sees_has_the_headers_of_every_answer() -> None:
    rest = Rest()
    await (await going_on(rest, reply_at_once))
    headers = dict(rest.sent[0]["headers"])
    assert headers[b"x-request-id"] == b"req_1"
    assert (headers[b"x-content-type-options"], headers[b"cache-control"]) == (b"nosniff", b"no-store")


async def reply_at_once(_caller: Caller) -> Reply:
    return Reply({})


@pytest.mark.parametrize("reply", [never, never_of_several])
async def test_a_client_that_is_gone_gets_no_answer_and_its_task_ends_well(
    reply: Callable[[Caller], Awaitable[Reply]],
) -> None:
    rest = Rest()
    going = await going_on(rest, reply)
    rest.leave()
    await going
    assert (rest.sent, going.cancelled(), going.cancelling()) == ([], False, 0)


@pytest.mark.parametrize("wait", [never, never_of_several])
async def test_a_query_is_not_broken_off_where_the_client_is_gone_meanwhile_and_no_wait_begins_after_it(
    wait: Callable[[Caller], Awaitable[Reply]],
) -> None:
    rest, query, read = Rest(), asyncio.Event(), list[bool]()

    async def reply(caller: Caller) -> Reply:
        read.append(await query.wait())
        return await wait(caller)

    going = await going_on(rest, reply)
    rest.leave()
    await turns()
    assert not going.done()
    query.set()
    await going
    assert (read, rest.sent, going.cancelled()) == ([True], [], False)


@pytest.mark.parametrize("is_gone", [True, False])
async def test_nothing_is_left_of_a_poll_that_has_ended_while_others_wait_on(is_gone: bool) -> None:
    waiting, rest = Waiting(), Rest()

    async def wait(seconds: float) -> Reply:
        with waiting.watch("a") as watch:
            await watch.changed(seconds)
        return Reply({})

    gc.collect()
    gc.disable()  # what only a collection frees is left for long
    try:
        before = len(_polls())
        going = await going_on(rest, lambda _caller: wait(20))  # its time-out is the first
        other = asyncio.create_task(wait(30))
        await turns()
        assert len(_polls()) == before + 1
        rest.leave() if is_gone else waiting.wake("a")
        await going
        rest.leave = list
        del going
        await turns()
        assert len(_polls()) == before
    finally:
        gc.enable()
    other.cancel()
    await asyncio.wait({other})


def _polls() -> list[LongPoll]:
    return [each for each in gc.get_objects() if isinstance(each, LongPoll)]


async def test_the_next_request_of_a_connection_has_no_client_of_the_one_before() -> None:
    seen: list[object] = []

    class Next(Rest):
        """Notes whose client it is when the answer is sent: what comes behind begins then."""

        async def send(self, message: Message) -> None:
            """Note it."""
            seen.append(LEAVER.get())

    async def reply(_caller: Caller) -> Reply:
        assert LEAVER.get() is not None
        return Reply({})

    await (await going_on(Next(), reply))
    assert seen == [None, None]


async def test_a_client_that_is_told_twice_to_be_gone_does_not_break_off_what_is_cleaned_up() -> None:
    rest, cleaned = Rest(), []

    async def reply(_caller: Caller) -> Reply:
        try:
            return await never(_caller)
        finally:
            await turns()
            cleaned.append(True)

    going = await going_on(rest, reply)
    rest.leave()
    await asyncio.sleep(0)
    rest.leave()
    await going
    assert (cleaned, rest.sent, going.cancelled()) == ([True], [], False)


@pytest.mark.parametrize("how", ["gone", "answered", "failed"])
async def test_the_room_for_a_large_answer_is_free_when_the_poll_has_ended(how: str) -> None:
    rest, budget = Rest(), BodyBudget(1000, 1, lambda: None)

    async def reply(caller: Caller) -> Reply:
        await caller.hold(800)
        assert budget.held == 800
        if how == "gone":
            return await never(caller)
        if how == "failed":
            raise Unavailable("the database is away")
        return Reply({})

    going = await going_on(rest, reply, budget=budget)
    rest.leave()
    await going
    await turns()
    assert budget.held == 0
    assert [message.get("status") for message in rest.sent] == {
        "gone": [],
        "answered": [200, None],
        "failed": [503, None],
    }[how]


class Unsendable(Rest):
    """Raises when a message is sent."""

    async def send(self, message: Message) -> None:
        """Fail, as for a header that cannot be sent."""
        raise RuntimeError(message["type"])


async def test_what_cannot_be_sent_is_counted_as_a_failed_request_and_left_to_the_server() -> None:
    failed = counted(exceptions, "request")
    before = failed._value.get()

    async def reply(_caller: Caller) -> Reply:
        return Reply({})

    going = await going_on(Unsendable(), reply)
    with pytest.raises(RuntimeError):
        await going
    assert failed._value.get() == before + 1


@pytest.mark.parametrize(("reads", "status"), [(True, 503), (False, 504)])
async def test_a_wait_that_a_stop_breaks_off_is_answered(reads: bool, status: int) -> None:
    rest = Rest()
    going = await going_on(rest, reads=reads, stops=True)
    going.cancel()
    await going
    assert [message.get("status") for message in rest.sent] == [status, None]


async def test_a_wait_that_is_cancelled_otherwise_is_not_answered() -> None:
    rest = Rest()
    going = await going_on(rest)
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    assert (rest.sent, going.cancelled()) == ([], True)
