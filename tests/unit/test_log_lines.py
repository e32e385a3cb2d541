"""How many log lines there are about what happens again and again."""

import pytest

from receiver.domain import log_lines
from receiver.domain.log_lines import LogLines


def test_a_subject_has_a_line_a_minute_that_counts_what_happened() -> None:
    lines = LogLines()
    assert [lines.due("a", second) for second in (0, 1, 30, 59, 60, 61, 119, 120)] == [1, 0, 0, 0, 4, 0, 0, 3]
    assert lines.due("b", 121) == 1


def test_all_subjects_together_have_a_bounded_number_of_lines() -> None:
    lines = LogLines()
    assert sum(lines.due(f"{number}", 5) > 0 for number in range(500)) == 20
    assert lines.due("new", 64) == 0
    assert lines.due("new", 66) == 2, "what had no line is counted in the next"


def test_so_few_subjects_are_remembered_that_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "_MOST_SUBJECTS", 10)
    lines = LogLines()
    for number in range(100):
        lines.due(f"{number}", 5)
    assert len(lines._last) == 10
