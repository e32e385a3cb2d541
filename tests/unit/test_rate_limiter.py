"""The rate limiter, and how long a call may take. The tests have their own clock, so none of them waits."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from receiver.errors import StorageUnavailable
from receiver.providers.calls import NotSent, ResponseLost
from receiver.providers.piapi.calls import Calls
from receiver.providers.rate_limiter import RateLimiter

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Advances the clock instead of waiting."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "no timer is set: the loop would never return"
            self.now += max(0.0, timeout)
        return ready


def run(main: Callable[[], Awaitable[Result]]) -> Result:
    """Run `main` on an event loop whose clock jumps to the next timer."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]

    async def body() -> Result:
        return await main()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(body())


def clock() -> float:
    return asyncio.get_running_loop().time() - 1000.0


async def times(rate_limiter: RateLimiter, count: int) -> list[float]:
    """Return when each of `count` calls got its token, in the order of the calls."""

    async def caller() -> float:
        await rate_limiter.acquire()
        return round(clock(), 3)

    return list(await asyncio.gather(*(caller() for _ in range(count))))


def test_a_burst_is_allowed_at_once_and_the_rest_at_the_rate() -> None:
    assert run(lambda: times(RateLimiter(2), 6)) == [0, 0, 0.5, 1.0, 1.5, 2.0]


def test_the_burst_can_be_set() -> None:
    assert run(lambda: times(RateLimiter(2, burst=1), 3)) == [0, 0.5, 1.0]


def test_a_slow_rate_has_a_burst_of_one() -> None:
    assert run(lambda: times(RateLimiter(0.25), 3)) == [0, 4, 8]


def test_tokens_do_not_accumulate_beyond_the_burst() -> None:
    async def main() -> list[float]:
        rate_limiter = RateLimiter(10, burst=2)
        await times(rate_limiter, 2)
        await asyncio.sleep(60)
        return await times(rate_limiter, 4)

    assert run(main) == [60, 60, 60.1, 60.2]


def test_a_pause_holds_all_calls_even_those_that_wait_already() -> None:
    async def main() -> list[float]:
        rate_limiter = RateLimiter(1)
        await rate_limiter.acquire()
        waiting = asyncio.ensure_future(times(rate_limiter, 2))
        await asyncio.sleep(0.5)
        rate_limiter.pause(30)
        return await waiting

    assert run(main) == [30.5, 31.5]


def test_after_a_pause_one_call_tries_first() -> None:
    async def main() -> list[float]:
        rate_limiter = RateLimiter(10)
        rate_limiter.pause(5)
        return await times(rate_limiter, 3)

    assert run(main) == [5, 5.1, 5.2]


def test_a_pause_is_capped_and_a_shorter_one_changes_nothing() -> None:
    async def main() -> list[float]:
        rate_limiter = RateLimiter(1)
        rate_limiter.pause(86400)
        rate_limiter.pause(1)
        rate_limiter.pause(-1)
        rate_limiter.pause(float("nan"))
        assert rate_limiter.paused_for() == 300
        return await times(rate_limiter, 1)

    assert run(main) == [300]


def test_a_cancelled_waiter_takes_no_token() -> None:
    async def main() -> list[float]:
        rate_limiter = RateLimiter(1)
        await rate_limiter.acquire()
        given_up = asyncio.ensure_future(rate_limiter.acquire())
        waiting = asyncio.ensure_future(times(rate_limiter, 1))
        await asyncio.sleep(0.5)
        given_up.cancel()
        return await waiting

    assert run(main) == [1]


async def order(rate_limiter: RateLimiter, callers: str) -> str:
    """Return the callers of calls made at once, in the order in which they got their tokens."""
    got: list[str] = []

    async def caller(caller: str) -> None:
        await rate_limiter.acquire(caller)
        got.append(caller)

    await asyncio.gather(*map(caller, callers))
    return "".join(got)


def test_callers_take_turns_so_that_one_call_does_not_wait_for_a_long_queue() -> None:
    async def main() -> str:
        rate_limiter = RateLimiter(1)
        await rate_limiter.acquire()
        return await order(rate_limiter, "bbbbbbbb" + "cl" + "ll")

    assert run(main) == "bclblblbbbbb"


def test_the_next_caller_is_chosen_when_a_token_is_available() -> None:
    async def main() -> tuple[str, float]:
        rate_limiter = RateLimiter(0.1)
        await rate_limiter.acquire()
        waiting = asyncio.ensure_future(order(rate_limiter, "bbbb"))
        await asyncio.sleep(15)  # the first of them has its token
        await rate_limiter.acquire("c")
        after = clock()
        return await waiting, after

    assert run(main) == ("bbbb", 30)


def test_tokens_are_handed_out_at_the_rate_however_many_callers_wait() -> None:
    async def main() -> float:
        rate_limiter = RateLimiter(4, burst=1)
        await order(rate_limiter, "abcdefgh")
        return clock()

    assert run(main) == 1.75


def test_a_caller_whose_calls_were_cancelled_delays_no_other() -> None:
    async def main() -> list[float]:
        rate_limiter = RateLimiter(1)
        await rate_limiter.acquire()
        given_up = [asyncio.ensure_future(rate_limiter.acquire("b")) for _ in range(50)]
        await asyncio.sleep(0.5)
        for each in given_up:
            each.cancel()
        return await times(rate_limiter, 2)

    assert run(main) == [1, 2]


class _Shared:
    """A shared limit with a list of slots; the third reservation fails as if the database were away."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def reserve(self, calls: int, interval: float, burst: int) -> list[float]:
        self.asked.append(calls)
        if len(self.asked) == 3:
            raise StorageUnavailable("gone")
        await asyncio.sleep(0.5)
        return [1 + place * interval for place in range(calls)]

    async def pause(self, seconds: float) -> None:
        return


def test_slots_of_a_shared_limit_are_taken_in_turn() -> None:
    async def main() -> tuple[str, float]:
        return await order(RateLimiter(8, shared=_Shared()), "bbbc"), clock()

    assert run(main) == ("bcbb", 2.25)


def test_only_as_many_slots_are_reserved_as_calls_wait() -> None:
    async def main() -> tuple[list[int], list[float]]:
        shared = _Shared()
        got = await times(RateLimiter(2, shared=shared), 4)
        return shared.asked, got

    # While the shared limit is unavailable, this process applies the rate alone.
    assert run(main) == ([1, 1, 1, 1], [1.0, 2.0, 2.0, 3.0])


class _Generous:
    """A shared limit that grants all slots at once."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def reserve(self, calls: int, interval: float, burst: int) -> list[float]:
        self.asked.append(calls)
        return [0.0] * calls

    async def pause(self, seconds: float) -> None:
        return


def test_more_slots_are_reserved_if_the_last_were_soon_used_but_a_quarter_of_a_second_at_most() -> None:
    async def main() -> list[int]:
        shared = _Generous()
        rate_limiter = RateLimiter(40, shared=shared)
        for _ in range(1 + 2 + 4 + 8 + 10 + 10):
            await rate_limiter.acquire()
        return shared.asked

    assert run(main) == [1, 2, 4, 8, 10, 10]


def test_slots_that_were_not_used_in_time_are_dropped() -> None:
    async def main() -> list[int]:
        shared = _Generous()
        rate_limiter = RateLimiter(40, shared=shared)
        for _ in range(4):
            await rate_limiter.acquire()
        await asyncio.sleep(1)
        for _ in range(2):
            await rate_limiter.acquire()
        return shared.asked

    assert run(main) == [1, 2, 4, 1, 2]


def test_an_error_of_the_shared_limiter_reaches_the_waiting_calls() -> None:
    class Broken(_Shared):
        async def reserve(self, calls: int, interval: float, burst: int) -> list[float]:
            raise RuntimeError("broken")

    async def main() -> list[Any]:
        rate_limiter = RateLimiter(1, shared=Broken())
        return await asyncio.gather(*(rate_limiter.acquire(caller) for caller in "ab"), return_exceptions=True)

    assert [str(error) for error in run(main)] == ["broken", "broken"]


@pytest.mark.parametrize(("rate", "burst"), [(0, None), (-1, None), (float("inf"), None), (1, 0)])
def test_an_invalid_rate_or_burst_is_refused(rate: float, burst: int | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        RateLimiter(rate, burst)


class _Hanging(Calls):
    """Calls whose response arrives byte by byte and never ends, so that no phase times out."""

    async def _exchange(self, *_: Any) -> Any:
        await asyncio.Event().wait()


def calls(rate_limiter: RateLimiter) -> Calls:
    return _Hanging(base_url="http://127.0.0.1:9", api_key="k" * 16, timeout=10, rate_limiter=rate_limiter)


def test_a_response_that_never_ends_times_out_as_lost() -> None:
    async def main() -> tuple[Any, float]:
        return await calls(RateLimiter(1)).call("GET", "/"), clock()

    outcome, after = run(main)
    assert isinstance(outcome, ResponseLost)
    assert after == 35


def test_a_call_waits_for_the_rate_limit_only_for_a_bounded_time() -> None:
    async def main() -> tuple[Any, float]:
        rate_limiter = RateLimiter(0.01)
        await rate_limiter.acquire()
        return await calls(rate_limiter).call("GET", "/"), clock()

    outcome, after = run(main)
    assert isinstance(outcome, NotSent)
    assert after == 10


def test_a_call_does_not_wait_at_all_for_a_long_pause() -> None:
    async def main() -> tuple[Any, float]:
        rate_limiter = RateLimiter(1)
        rate_limiter.pause(60)
        return await calls(rate_limiter).call("GET", "/"), clock()

    outcome, after = run(main)
    assert outcome == NotSent("the rate limit of calls to the provider is used up", 60)
    assert after == 0
