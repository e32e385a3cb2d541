"""Queries and pages of lists."""

from typing import Any

import orjson
import pytest
from starlette.datastructures import QueryParams

from receiver.api.lists import (
    MOST_FILTERS,
    MOST_PARAMETERS,
    MOST_QUERY_BYTES,
    check_names,
    check_size,
    page,
    read_cursor,
    read_query,
)
from receiver.errors import BadRequest
from receiver.storage.large_rows import MOST_PAGE_BYTES


def shown(numbers: range, limit: int, size: int = 1) -> dict[str, Any]:
    """Return a page, parsed: of rows with these numbers, each an item of `size` bytes."""
    rows = [{"id": number} for number in numbers]
    reply = page(rows, limit, ({"id": row["id"], "text": "x" * size} for row in rows))
    return dict(orjson.loads(orjson.dumps(reply.data)))


def test_a_page_has_at_most_limit_items_and_a_cursor_to_the_next() -> None:
    first = shown(range(10, 6, -1), 3)
    assert [item["id"] for item in first["data"]] == [10, 9, 8]
    assert (first["has_more"], read_cursor(first["next_cursor"])) == (True, 8)


@pytest.mark.parametrize("numbers", [range(3, 0, -1), range(0)])
def test_the_last_page_has_no_cursor(numbers: range) -> None:
    last = shown(numbers, 3)
    assert len(last["data"]) == len(numbers)
    assert (last["has_more"], last["next_cursor"]) == (False, None)


def test_a_page_of_large_items_is_shorter_and_continues_where_it_ended() -> None:
    first = shown(range(10, 0, -1), 9, size=MOST_PAGE_BYTES // 2 - 100)
    assert [item["id"] for item in first["data"]] == [10, 9]
    assert (first["has_more"], read_cursor(first["next_cursor"])) == (True, 9)


def test_an_item_larger_than_a_page_is_a_page() -> None:
    first = shown(range(2, 0, -1), 2, size=MOST_PAGE_BYTES + 1)
    assert [item["id"] for item in first["data"]] == [2]
    assert first["has_more"]
    assert not shown(range(1, 0, -1), 2, size=MOST_PAGE_BYTES + 1)["has_more"]


@pytest.mark.parametrize("query", ["limit=1", "metadata[a]=b&metadata[c]=d", "limit=&metadata=x", ""])
def test_known_names_pass(query: str) -> None:
    check_names(QueryParams(query), ("limit", "metadata"))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("colour=red", "colour"),
        ("limit=1&colour=", "colour"),
        ("Limit=1", "Limit"),
        ("tags[a]=b", "tags"),
        ("%00=", "\0"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(query: str, param: str) -> None:
    with pytest.raises(BadRequest, match="known are limit, metadata") as caught:
        check_names(QueryParams(query), ("limit", "metadata"))
    assert (caught.value.code, caught.value.param) == ("invalid_query_params", param)


def test_a_path_without_a_query_says_so() -> None:
    with pytest.raises(BadRequest, match="'limit' is not a query parameter of this path; this path takes none"):
        check_names(QueryParams("limit=1"), ())


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=1&limit=2", "limit"),
        ("metadata[a]=1&metadata[a]=1", "metadata[a]"),
        ("limit=1&limit[a]=2", "limit"),
        ("&".join(f"metadata[{number}]=x" for number in range(MOST_FILTERS + 1)), "metadata"),
    ],
)
def test_a_query_that_repeats_a_name_or_has_too_many_filters_is_refused(query: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_query(QueryParams(query))
    assert (caught.value.code, caught.value.param) == ("invalid_query_params", param)


def test_lists_are_repeated_and_empty_values_are_not() -> None:
    assert read_query(QueryParams("model=a,b&model=c&limit=&limit=5"), ("model",)) == {
        "model": ["a", "b", "c"],
        "limit": "5",
    }
    filters = "&".join(f"metadata[{number}]=x" for number in range(MOST_FILTERS))
    assert len(read_query(QueryParams(filters))["metadata"]) == MOST_FILTERS


def test_a_query_is_refused_by_its_size_before_it_is_read() -> None:
    check_size(b"a=" + b"x" * (MOST_QUERY_BYTES - 2))
    check_size(b"&".join([b"a=1"] * MOST_PARAMETERS))
    for query in (b"x" * (MOST_QUERY_BYTES + 1), b"&" * MOST_PARAMETERS):
        with pytest.raises(BadRequest):
            check_size(query)
