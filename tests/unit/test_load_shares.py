"""Shares of a process: who uses most of it is slowed while it is late, and no longer."""

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.load_shares import LATE_SECONDS, LEAST, LONGEST_WAIT, Load, LoadShares

STEP = 0.02
BUSY, LATE = 0.9, 4 * LATE_SECONDS


class Process:
    """A process whose lateness a test sets; its clock is in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.shares = LoadShares()

    def work(self, organization: int, cost: float = 1.0, work: Load = Load.REQUESTS) -> float:
        return self.shares.use(organization, work).begin(self.now, cost)

    def pass_time(
        self, seconds: float, lag: float = 0.0, batch: float = 0.004, busy: float = BUSY, **used: int
    ) -> None:
        """Let time pass in which organizations (`of_1=10`) use so much a second."""
        for _ in range(round(seconds / STEP)):
            for name, cost in used.items():
                self.work(int(name.removeprefix("of_")), cost * STEP)
            self.now += STEP
            self.shares.loop_measured(lag, busy)
            self.shares.writer_measured(batch)
            self.shares.adjust(STEP, self.now)

    def rate(self, organization: int, work: Load = Load.REQUESTS) -> float | None:
        return self.shares.use(organization, work).pace.rate


def test_who_uses_most_of_a_late_process_is_slowed_and_others_are_not() -> None:
    process = Process()
    process.pass_time(3, LATE, of_1=800, of_2=30, of_3=60)
    assert process.rate(1) == LEAST / 3, "the least that it keeps"
    assert (process.rate(2), process.rate(3)) == (None, None)
    assert process.work(1, 500) >= 0
    assert process.work(1) > 1, "it waits for what it has used"
    assert max(process.work(1, 100) for _ in range(1000)) == LONGEST_WAIT
    process.now += LONGEST_WAIT + 2
    assert process.work(1) < 2, "and not longer for what it has used beyond that"
    assert process.work(2) == 0
    assert process.shares.slowed == 1


def test_long_batches_of_the_writer_slow_too_and_a_slow_disk_does_not() -> None:
    slow_disk = Process()
    slow_disk.pass_time(3, batch=0.03, of_1=800, of_2=30)
    assert slow_disk.rate(1) is None
    process = Process()
    process.pass_time(3, batch=0.005, of_1=80, of_2=30)
    process.pass_time(3, batch=0.05, of_1=800, of_2=30)
    assert process.rate(1) == LEAST / 2
    assert process.rate(2) is None


def test_it_is_as_quick_as_before_soon_after_the_process_is_in_time() -> None:
    process = Process()
    process.pass_time(3, LATE, of_1=800, of_2=30)
    slowest = process.rate(1)
    process.pass_time(0.5, of_1=100, of_2=30)
    assert slowest is not None
    assert process.rate(1) is not None
    assert (process.rate(1) or 0) > slowest
    process.pass_time(6, of_1=100, of_2=30)
    assert process.rate(1) is None
    assert process.shares.slowed == 0


def test_nobody_is_slowed_while_one_organization_alone_has_work() -> None:
    process = Process()
    process.pass_time(3, 10 * LATE, batch=1.0, of_1=2000)
    assert process.rate(1) is None
    process.pass_time(3, LATE, of_1=2000, of_2=30)
    assert process.rate(1) is not None
    process.pass_time(61, LATE, of_1=2000)
    assert process.rate(1) is None, "the other one has had no work for a minute"
    assert not process.shares.is_shared


def test_nobody_is_slowed_where_something_else_makes_the_loop_late() -> None:
    process = Process()
    process.pass_time(3, LATE, busy=0.1, of_1=800, of_2=30)
    assert process.rate(1) is None


def test_who_uses_less_than_it_may_always_use_is_not_slowed_though_it_uses_most() -> None:
    process = Process()
    process.pass_time(3, LATE, of_1=int(LEAST / 2) - 10, of_2=int(LEAST / 2) - 30)
    assert (process.rate(1), process.rate(2)) == (None, None)


def test_who_uses_about_what_it_may_always_use_is_not_slowed_below_it_though_the_process_stays_late() -> None:
    process = Process()
    waits = []
    for _ in range(1500):
        process.pass_time(STEP, LATE)
        for load in Load:  # the first uses all that its paces leave it
            for _ in range(4):
                if process.shares.use(1, load).pace.ready_at(process.now) <= process.now:
                    process.work(1, 2.0, load)
        waits += [process.work(2, 1.2), process.work(2, 2.3, Load.DELIVERIES)]  # 60 and 115 a second, of 165
    assert max(waits) < 0.5


def test_deliveries_have_a_pace_of_their_own() -> None:
    process = Process()
    process.pass_time(3, LATE, of_1=800, of_2=30)
    process.work(1, 10_000)
    assert process.work(1) == LONGEST_WAIT
    assert process.work(1, work=Load.DELIVERIES) == 0


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 300), st.booleans()), min_size=1, max_size=60))
def test_a_pace_is_never_below_the_least_and_never_for_who_uses_least(steps: list[tuple[int, int, bool]]) -> None:
    process = Process()
    for organization, cost, is_late in steps:
        process.work(organization, cost)
        process.work(9, 0.001)  # less than any equal share
        process.pass_time(STEP, LATE if is_late else 0.0)
        assert process.rate(9) is None
        for each in range(1, 5):
            for work in Load:
                rate = process.rate(each, work)
                assert rate is None or rate >= LEAST / 5 / len(Load)
