"""The table of `make profile`: which functions are wide, made of the stacks that were sampled."""

from tests.bench.profiling import widths

STACKS = """main (/x/receiver/cli.py:3);work (/x/receiver/inbound/receive.py:7) 6
main (/x/receiver/cli.py:3);work (/x/receiver/inbound/receive.py:9);loads (orjson.so) 3
main (/x/receiver/cli.py:3);work (/x/receiver/inbound/receive.py:7);work (/x/receiver/inbound/receive.py:7) 1"""


def test_a_function_counts_itself_and_once_with_what_it_calls() -> None:
    own, below, total = widths(STACKS)
    assert total == 10
    assert own == {"work (receiver/inbound/receive.py)": 7, "loads (orjson.so)": 3}
    assert below["work (receiver/inbound/receive.py)"] == 10
    assert below["loads (orjson.so)"] == 3
