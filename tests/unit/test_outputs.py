"""Outputs: the same URL fields for every model, nothing removed, no exception."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.domain.outputs import has_output, leaf_count, normalise_output

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILLED = ("image_url", "image_urls", "video_url", "audio_url")
NAMES = st.sampled_from(
    (
        *FILLED,
        *("video", "image", "audio", "works", "generation", "url", "resource", "contentType", "cover", "value"),
        *("temporary_image_urls", "discord_image_url", "resource_without_watermark", "resourceWithoutWatermark"),
    )
)
TEXTS = (
    st.sampled_from(["", " ", "https://example.com/a.mp4", "HTTP://example.com/b", "video", "audio/mpeg"]) | st.text()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=6),
    max_leaves=30,
)


def is_blank(value: Any) -> bool:
    return value in (None, [], {}) or (isinstance(value, str) and not value.strip())


@RELAXED
@given(output=JSON, works=JSON)
def test_any_json_is_accepted_and_nothing_is_removed(output: Any, works: Any) -> None:
    result = normalise_output(output, works)
    if isinstance(output, dict):
        assert result is not None
        for name, value in output.items():
            filled_in = name in (*FILLED, "works") and is_blank(value)
            assert filled_in or repr(result[name]) == repr(value)
        assert set(result) - set(output) <= {*FILLED, "works"}
    elif not is_blank(output):
        assert result is not None
        assert repr(result["value"]) == repr(output)


@RELAXED
@given(output=JSON, works=JSON)
def test_normalising_twice_is_normalising_once(output: Any, works: Any) -> None:
    once = normalise_output(output, works)
    assert repr(normalise_output(once)) == repr(once)
    assert repr(normalise_output(once, works)) == repr(once)


@RELAXED
@given(output=JSON)
def test_the_argument_is_not_modified(output: Any) -> None:
    before = repr(output)
    normalise_output(output)
    assert repr(output) == before


@RELAXED
@given(value=JSON)
def test_a_result_has_at_least_one_leaf(value: Any) -> None:
    assert leaf_count(value) >= has_output(value)


def test_a_blank_output_is_normalised_to_none() -> None:
    assert normalise_output(None) is None
    assert normalise_output("") is None
    assert normalise_output([]) is None
    assert normalise_output(None, []) is None
    assert normalise_output({}) == {}


def test_present_values_are_not_overwritten() -> None:
    output = {"video_url": "https://example.com/own.mp4", "video": "https://example.com/other.mp4"}
    assert normalise_output(output) == output
    assert normalise_output({"image_url": 7})["image_url"] == 7  # type: ignore[index]


def test_an_image_in_base64_is_not_a_url() -> None:
    assert normalise_output({"image": "iVBORw0KGgo="}) == {"image": "iVBORw0KGgo="}


def test_image_url_and_image_urls_are_derived_from_each_other() -> None:
    one, two = "https://example.com/1.png", "https://example.com/2.png"
    assert normalise_output({"image_url": one}) == {"image_url": one, "image_urls": [one]}
    assert normalise_output({"image_urls": [one, two]}) == {"image_url": one, "image_urls": [one, two]}


def test_a_cover_image_is_not_a_result() -> None:
    output = {"works": [{"cover": {"resource": "https://example.com/c.png"}, "video": {"resource": ""}}]}
    assert normalise_output(output) == output


def test_the_discord_url_of_midjourney_is_used_if_there_is_no_other() -> None:
    discord = "https://example.com/d.png"
    assert normalise_output({"discord_image_url": discord})["image_url"] == discord  # type: ignore[index]


@pytest.mark.parametrize(
    "output",
    [
        None,
        {},
        [],
        "",
        {"image_url": "", "image_urls": []},
        {"video": {"url": ""}},
        {"percent": 100, "video_url": "", "status": 99},
        {"works": [{"status": 5, "contentType": "video", "resource": {"resource": "", "height": 0}}]},
    ],
)
def test_an_output_without_a_result_has_no_output(output: Any) -> None:
    assert not has_output(output)


@pytest.mark.parametrize(
    "output", [{"image_url": "https://example.com/i.png"}, {"text": "yes"}, {"score": 0.5}, {"value": "x"}]
)
def test_an_output_with_a_result_has_output(output: Any) -> None:
    assert has_output(output)


def test_blank_leaves_are_not_counted() -> None:
    assert leaf_count(None) == 0
    assert leaf_count({"a": None, "b": "", "c": [], "d": {}, "e": " "}) == 0
    assert leaf_count({"a": 0, "b": False, "c": ["x", {"d": "y"}]}) == 4


def test_deep_nesting_is_accepted() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert leaf_count(deep) == 1
    assert has_output({"works": deep})
    assert normalise_output({"works": deep, "video": deep}) is not None
