"""Derived ids: deterministic, and in order."""

import uuid

import pytest

from receiver.domain.ids import derived_id, is_id, new_id


def test_derived_ids_depend_on_the_first_id_and_the_number_alone() -> None:
    first, other = new_id(), new_id()
    derived = [derived_id(each, number) for each in (first, other) for number in (1, 2, 4095)]
    assert derived == [derived_id(each, number) for each in (first, other) for number in (1, 2, 4095)]
    assert len({first, other, *derived}) == 8


def test_derived_ids_are_version_7_have_the_time_of_the_first_and_sort_by_number() -> None:
    first = new_id()
    derived = [derived_id(first, number) for number in range(1, 1001)]
    assert derived == sorted(derived)
    for each in derived:
        assert is_id(each)
        assert (uuid.UUID(each).version, uuid.UUID(each).variant) == (7, uuid.RFC_4122)
        assert each[:13] == first[:13]


@pytest.mark.parametrize("number", [-1, 0, 4096])
def test_a_number_beyond_the_twelve_bits_of_the_counter_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        derived_id(new_id(), number)
