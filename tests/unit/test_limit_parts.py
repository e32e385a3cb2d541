"""The parts of a limit that several processes take: together the whole limit, and to each what it wants of it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.api.limits import KeyLimit, KeyLimits
from receiver.domain import limit_parts
from receiver.domain.limit_parts import LimitParts, OthersUse

NAME = "key:1"


class Processes:
    """Processes that exchange what they want whenever a test says so; its clock is in seconds."""

    def __init__(self, count: int) -> None:
        self.now = 1000.0
        self.parts = [LimitParts(lambda: self.now) for _ in range(count)]
        self._told: list[dict[str, float]] = [{} for _ in range(count)]

    def exchange(self) -> None:
        """Let each process tell and learn, in turn; then let a second pass."""
        for number, parts in enumerate(self.parts):
            mine = self._told[number] = parts.to_tell()
            parts.learn({name: self._others(number, name) for name in mine}, len(self.parts))
        self.now += 1

    def want(self, wanted: Sequence[float]) -> list[float]:
        """Ask for the part of each process that wants something; the part of the others is 0."""
        return [part.part(NAME, want) if want else 0.0 for part, want in zip(self.parts, wanted, strict=True)]

    def settled(self, wanted: Sequence[float]) -> list[float]:
        """Return the parts after three seconds in which the processes want this much."""
        for _ in range(3):
            self.want(wanted)
            self.exchange()
        return self.want(wanted)

    def _others(self, number: int, name: str) -> OthersUse:
        told = [each.get(name, 0.0) for other, each in enumerate(self._told) if other != number]
        wanting = [wanted for wanted in told if wanted]
        return OthersUse(sum(wanting), len(wanting))


def test_the_part_of_a_process_follows_what_it_wants() -> None:
    assert Processes(2).settled([300, 100]) == pytest.approx([0.9 * 0.75 + 0.05, 0.9 * 0.25 + 0.05])


def test_an_idle_process_has_no_part() -> None:
    assert Processes(4).settled([500, 0, 0, 0]) == [1.0, 0, 0, 0]


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=6))
def test_the_parts_add_up_to_the_limit_and_each_is_some(wanted: list[float]) -> None:
    parts = Processes(len(wanted)).settled(wanted)
    assert sum(parts) == pytest.approx(1)
    assert all(0.1 / len(wanted) <= part <= 1 for part in parts)


def test_until_it_knows_the_others_a_process_has_its_equal_part() -> None:
    processes = Processes(4)
    processes.exchange()
    assert processes.want([100, 0, 0, 0])[0] == 0.25
    processes.exchange()
    assert processes.want([100, 0, 0, 0])[0] == 0.25, "others may have begun at the same time"
    processes.exchange()
    assert processes.want([100, 0, 0, 0])[0] == 1.0


def test_a_process_that_begins_takes_its_part_from_the_others_at_their_next_exchange() -> None:
    processes = Processes(2)
    assert processes.settled([100, 0]) == [1.0, 0]
    assert processes.want([100, 100]) == [1.0, 0.5]
    processes.exchange()
    processes.exchange()
    assert processes.want([100, 100]) == [pytest.approx(0.5), pytest.approx(0.5)]


def test_a_process_that_ends_its_use_gives_its_part_back() -> None:
    processes = Processes(2)
    processes.settled([100, 100])
    for _ in range(5):
        parts = processes.want([100, 0])
        processes.exchange()
    assert parts == [1.0, 0]
    assert processes.parts[1].is_idle()
    assert not processes.parts[0].is_idle()


def test_without_exchanges_the_last_part_stays_and_then_all_are_equal() -> None:
    processes = Processes(3)
    much = processes.settled([300, 100, 0])[0]
    for _ in range(9):
        processes.now += 1
        assert processes.want([300, 0, 0])[0] == much
    processes.now += 2
    assert processes.want([300, 0, 0])[0] == pytest.approx(1 / 3)


def test_the_names_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_parts, "MOST_OF_A_KIND", 10)
    clock = [0.0]
    parts = LimitParts(lambda: clock[0])
    parts.learn({}, 2)
    assert {parts.part(f"key:{number}", 1) for number in range(1000)} == {0.5}
    assert len(parts.to_tell()) == 10
    parts.part("webhook-rate:1", 1)
    assert len(parts.to_tell()) == 11, "limits of another kind have room of their own"
    clock[0] = 10
    assert set(parts.to_tell().values()) == {0}
    assert parts.to_tell() == {}
    parts.part("key:1000", 1)
    assert len(parts.to_tell()) == 1


class Replicas:
    """Processes that each count the requests of key 1, on one clock that a test moves."""

    def __init__(self, limit: KeyLimit, count: int) -> None:
        self.processes = Processes(count)
        self._limits = [KeyLimits(limit, self._clock, parts.part) for parts in self.processes.parts]

    def allowed(self, rates: Sequence[int], seconds: int) -> list[int]:
        """Make `rates` requests a second at each process for some seconds; return how many each allowed."""
        allowed = [0] * len(rates)
        for _ in range(seconds):
            self.processes.exchange()
            self.processes.now -= 1
            for step in range(100):
                for number, rate in enumerate(rates):
                    for _ in range(rate * (step + 1) // 100 - rate * step // 100):
                        allowed[number] += self._limits[number].take(1, None).retry_after is None
                self.processes.now += 0.01
        return allowed

    def _clock(self) -> int:
        return round(self.processes.now * 1e9)


@pytest.mark.parametrize(
    "rates",
    [[200, 200], [200, 60], [400, 4], [200, 0], [90, 90, 90]],
    ids=["both busy", "one busier", "one nearly idle", "one idle", "three"],
)
def test_a_key_gets_its_rate_over_all_replicas(rates: list[int]) -> None:
    replicas = Replicas(KeyLimit.of(50), len(rates))
    replicas.allowed(rates, 3)
    assert 50 * 10 * 0.9 <= sum(replicas.allowed(rates, 10)) <= 50 * 10 * 1.1


def test_replicas_that_get_busy_at_once_allow_one_burst_and_not_one_each() -> None:
    replicas = Replicas(KeyLimit.of(50), 4)
    replicas.allowed([0, 0, 0, 0], 1)
    assert sum(replicas.allowed([200, 200, 200, 200], 1)) <= 50 + 50 + 10


def test_below_its_limit_a_key_is_never_refused_after_the_start() -> None:
    replicas = Replicas(KeyLimit.of(100), 2)
    replicas.allowed([30, 30], 3)
    assert replicas.allowed([30, 30], 10) == [300, 300]


def test_a_slow_limit_is_shared_too() -> None:
    replicas = Replicas(KeyLimit.of(30, 60), 2)
    assert 60 <= sum(replicas.allowed([1, 1], 120)) <= 100


def test_a_key_that_uses_little_of_its_limit_is_not_exchanged() -> None:
    replicas = Replicas(KeyLimit.of(1000), 2)
    assert replicas.allowed([40, 40], 5) == [200, 200]
    assert all(parts.is_idle() for parts in replicas.processes.parts)
