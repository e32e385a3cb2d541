"""References between steps: their syntax, their values, and the errors for invalid and unresolved ones."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.references import (
    LONGEST_REFERENCE,
    InvalidReference,
    Path,
    Reference,
    UnresolvedReference,
    look_up,
    mapped_input,
    parse_path,
    parse_reference,
    resolve,
)

RESULT = {
    "task_id": "t-1",
    "image_urls": ["https://x/1.png", "https://x/2.png"],
    "works": [{"cover-url": "https://x/c.png", "size": {"w": 1}}],
    "empty": [],
    "nothing": None,
    "zero": 0,
    "no": False,
    "blank": "",
    'odd "name"': "odd",
}
METADATA = {"customer": {"id": 7}, "tags": ["a", "b"]}
JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=5), inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


def resolved(text: str) -> Any:
    return resolve(parse_reference(text), results={"a": RESULT}, metadata=METADATA)


def unresolved_message(text: str, metadata: Any = METADATA) -> str:
    with pytest.raises(UnresolvedReference) as caught:
        resolve(parse_reference(text), results={"a": RESULT}, metadata=metadata)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "step_id", "path"),
    [
        ("$steps.a.result", "a", ()),
        ("$steps.extract-brand_2.result.brand_id", "extract-brand_2", ("brand_id",)),
        ("$steps.result.result.result", "result", ("result",)),
        ("$steps.a.result.image_urls[0]", "a", ("image_urls", 0)),
        ("$steps.a.result.a[0][-12].b", "a", ("a", 0, -12, "b")),
        ('$steps.a.result."cover-url"."a.b[0]"', "a", ("cover-url", "a.b[0]")),
        (r'$steps.a.result."a \"b\" \u00e9 \\"', "a", ('a "b" é \\',)),
        ("$run.metadata", None, ()),
        ("$run.metadata.customer.id", None, ("customer", "id")),
    ],
)
def test_a_reference_is_parsed(text: str, step_id: str | None, path: Path) -> None:
    assert parse_reference(text) == Reference(text, step_id, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "brand",
        "$steps",
        "$steps.a",
        "$steps.a.output",
        "$steps..result",
        "$steps.a b.result",
        f"$steps.{'a' * 65}.result",
        " $steps.a.result",
        "$run.id",
        "see $steps.a.result.url",
    ],
)
def test_the_error_for_an_invalid_reference_shows_the_valid_forms(text: str) -> None:
    with pytest.raises(InvalidReference, match=r"is not a reference: write `\$steps\.<id>\.result\[\.<path>\]`"):
        parse_reference(text)


@pytest.mark.parametrize(
    "path",
    [
        ".",
        "s",
        " ",
        ".a.",
        ".a..b",
        "[0]",
        ".[0]",
        ".a[]",
        ".a[*]",
        ".a[0:1]",
        ".a[?b]",
        ".a[ 0 ]",
        ".a[0",
        ".a[1234567890]",
        ".a[\u0663]",
        ".*",
        ".a | b",
        ".length(a)",
        ".image-url",
        ".0",
        ".images.0",
        '.""',
        '."a',
        r'."\q"',
        '."\n"',
        r'."\ud800"',
        ".a\n",
        ".é",
    ],
)
def test_a_path_outside_the_supported_subset_is_refused(path: str) -> None:
    with pytest.raises(InvalidReference, match="cannot be parsed from"):
        parse_reference(f"$steps.a.result{path}")


def test_the_error_shows_where_the_path_becomes_invalid() -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference("$steps.a.result.works[0].cover-url")
    assert "from '-url' on" in caught.value.message
    assert caught.value.code == "invalid_reference"


def test_the_length_of_a_reference_is_limited() -> None:
    parse_reference("$run.metadata." + "a" * (LONGEST_REFERENCE - 14))
    with pytest.raises(InvalidReference, match="too long"):
        parse_reference("$run.metadata." + "a" * (LONGEST_REFERENCE - 13))


def test_a_path_without_a_root_begins_with_a_name() -> None:
    assert parse_path("works[0].url") == ("works", 0, "url")
    assert parse_path('"cover-url"') == ("cover-url",)
    for text in ("", "[0]", ".a", "a b"):
        with pytest.raises(InvalidReference):
            parse_path(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$steps.a.result", RESULT),
        ("$steps.a.result.task_id", "t-1"),
        ("$steps.a.result.image_urls", RESULT["image_urls"]),
        ("$steps.a.result.image_urls[0]", "https://x/1.png"),
        ("$steps.a.result.image_urls[-1]", "https://x/2.png"),
        ("$steps.a.result.image_urls[-2]", "https://x/1.png"),
        ('$steps.a.result.works[0]."cover-url"', "https://x/c.png"),
        ("$steps.a.result.works[0].size.w", 1),
        ("$steps.a.result.empty", []),
        ("$steps.a.result.zero", 0),
        ("$steps.a.result.no", False),
        ("$steps.a.result.blank", ""),
        ("$run.metadata", METADATA),
        ("$run.metadata.tags[1]", "b"),
    ],
)
def test_a_reference_resolves_to_its_value(text: str, value: Any) -> None:
    assert resolved(text) == value


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("$steps.a.result.image_urls[2]", "`$steps.a.result.image_urls` is a list of 2"),
        ("$steps.a.result.image_urls[-3]", "`$steps.a.result.image_urls` is a list of 2"),
        ("$steps.a.result.image_urls.url", "`$steps.a.result.image_urls` is a list of 2"),
        ("$steps.a.result.image_urls[0].url", "`$steps.a.result.image_urls[0]` is a string of 15 characters"),
        ("$steps.a.result.task_id[0]", "`$steps.a.result.task_id` is a string of 3 characters"),
        ('$steps.a.result.works[0]."cover url"', "`$steps.a.result.works[0]` is an object with cover-url, size"),
        ('$steps.a.result."odd \\"name\\"".x', '`$steps.a.result."odd \\"name\\""` is a string of 3 characters'),
        ("$steps.a.result.empty[0]", "`$steps.a.result.empty` is a list of 0"),
        ("$steps.a.result.nothing", "`$steps.a.result.nothing` is null"),
        ("$steps.a.result.nothing.more", "`$steps.a.result.nothing` is null"),
        ("$steps.a.result.zero.more", "`$steps.a.result.zero` is a number"),
        ("$steps.a.result.no.more", "`$steps.a.result.no` is a boolean"),
        ("$run.metadata.customer.name", "`$run.metadata.customer` is an object with id"),
    ],
)
def test_the_error_for_a_missing_value_shows_which_part_of_the_path_exists(text: str, reached: str) -> None:
    assert unresolved_message(text) == f"`{text}` has no value: {reached}"


def test_missing_metadata_is_null() -> None:
    assert unresolved_message("$run.metadata", None) == "`$run.metadata` has no value: `$run.metadata` is null"
    assert unresolved_message("$run.metadata.x", None).endswith("`$run.metadata` is null")
    assert unresolved_message("$run.metadata.x", {}).endswith("`$run.metadata` is an empty object")


def test_an_error_lists_few_names_and_no_values() -> None:
    metadata = {"n" * 1000: "the value", **{f"name{number}": "the value" for number in range(30)}}
    message = unresolved_message("$run.metadata.x", metadata)
    assert message.endswith("name8 and 21 more")
    assert "the value" not in message
    assert len(message) < 300


def test_the_input_map_overrides_the_input() -> None:
    given = {"prompt": "a cat", "url": "old", "deep": {"a.b": 1}}
    input_map = {"url": "$steps.a.result.image_urls[0]", "a.b": "$run.metadata.customer.id"}
    made = mapped_input(given, input_map, results={"a": RESULT}, metadata=METADATA)
    assert made == {"prompt": "a cat", "url": "https://x/1.png", "deep": {"a.b": 1}, "a.b": 7}
    assert given["url"] == "old"


def test_only_the_input_map_is_searched_for_references() -> None:
    given = {"url": "$steps.a.result.task_id", "deep": {"url": "$run.metadata"}}
    assert mapped_input(given, {}, results={"a": RESULT}, metadata=METADATA) == given


def test_an_input_map_with_an_unresolved_reference_raises() -> None:
    with pytest.raises(UnresolvedReference, match=r"video_url` has no value"):
        mapped_input({}, {"u": "$steps.a.result.video_url"}, results={"a": RESULT}, metadata=None)


def test_looking_up_a_missing_value_returns_none() -> None:
    assert look_up(("works", 0, "size"), RESULT) == {"w": 1}
    assert look_up(("works", 1), RESULT) is None
    assert look_up(("nothing", "more"), RESULT) is None
    assert look_up(("x",), None) is None


def paths_of(value: Any) -> list[tuple[str, Any]]:
    """Return every path within a value, as text, with the value at it."""
    found: list[tuple[str, Any]] = [("", value)]
    if isinstance(value, dict):
        for name, inner in value.items():
            found += [(f".{orjson.dumps(name).decode()}{path}", leaf) for path, leaf in paths_of(inner)]
    if isinstance(value, list):
        for index, inner in enumerate(value):
            at = [index, index - len(value)][index % 2]
            found += [(f"[{at}]{path}", leaf) for path, leaf in paths_of(inner)]
    return found


@given(st.dictionaries(st.text(min_size=1, max_size=5), JSON, max_size=3))
def test_every_value_can_be_reached_by_its_path(result: dict[str, Any]) -> None:
    for path, value in paths_of(result):
        reference = parse_reference(f"$steps.a.result{path}")
        assert resolve(reference, results={"a": result}, metadata=None) is value


@given(st.text(max_size=60) | st.text(alphabet='$steps.a.result[0]-"\\', max_size=40).map("$steps.a.result".__add__))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    message = ""
    try:
        resolve(parse_reference(text), results={"a": RESULT}, metadata=None)
    except (InvalidReference, UnresolvedReference) as error:
        message = error.message
    assert len(message) < 500
