"""Which `traceparent` of a request is kept (W3C Trace Context, level 2, "Processing Model")."""

import pytest

from receiver.telemetry.trace_context import read_traceparent

IDS = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
GIVEN = f"00-{IDS}-01"


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([GIVEN], GIVEN),
        ([f" {GIVEN}\t"], GIVEN),
        ([f"00-{IDS}-03"], f"00-{IDS}-03"),
        ([f"cc-{IDS}-03-what-comes-later"], f"00-{IDS}-01"),
        ([f"cc-{IDS}-00"], f"00-{IDS}-00"),
        ([], None),
        ([GIVEN, GIVEN], None),
        ([f"{GIVEN}-more"], None),
        ([f"cc-{IDS}-01.more"], None),
        ([f"ff-{IDS}-01"], None),
        ([GIVEN.upper()], None),
        ([f"00-{'0' * 32}-00f067aa0ba902b7-01"], None),
        ([f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01"], None),
        ([GIVEN[:-1]], None),
        ([f"{GIVEN}\n"], None),
    ],
)
def test_a_valid_one_is_kept_and_any_other_is_ignored(values: list[str], kept: str | None) -> None:
    assert read_traceparent(values) == kept
