"""Outputs: the same URL fields for every model, nothing removed, no exception."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.outputs import has_output, leaf_count, main_url, normalise_output

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


def normalised(output: Any, **beside: Any) -> dict[str, Any]:
    """Return the normalised output, which must not be blank."""
    result = normalise_output(output, beside)
    assert result is not None
    return result


def named(output: Any, **beside: Any) -> dict[str, Any]:
    """Return the normalised output without the list of files."""
    return {name: value for name, value in normalised(output, **beside).items() if name != "output_files"}


@given(output=JSON, works=JSON)
def test_any_json_is_accepted_and_nothing_is_removed(output: Any, works: Any) -> None:
    result = normalise_output(output, {"works": works})
    if isinstance(output, dict):
        assert result is not None
        for name, value in output.items():
            filled_in = name in (*FILLED, "works", "output_files") and is_blank(value)
            assert filled_in or repr(result[name]) == repr(value)
        assert set(result) - set(output) <= {*FILLED, "works", "output_files"}
    elif not is_blank(output):
        assert result is not None
        assert repr(result["value"]) == repr(output)
    if not is_blank(works) and (not isinstance(output, dict) or is_blank(output.get("works"))):
        assert result is not None
        assert repr(result["works"]) == repr(works)


@given(output=JSON, works=JSON)
def test_normalising_twice_is_normalising_once(output: Any, works: Any) -> None:
    once = normalise_output(output, {"works": works})
    assert repr(normalise_output(once)) == repr(once)
    assert repr(normalise_output(once, {"works": works})) == repr(once)


@given(output=JSON)
def test_every_url_is_listed_once_and_the_names_and_the_main_result_are_among_the_files(output: Any) -> None:
    result = normalise_output(output)
    given_names = output if isinstance(output, dict) else {}
    if result is None or not is_blank(given_names.get("output_files")):
        return
    urls = [each["url"] for each in result.get("output_files", [])]
    assert len(urls) == len(set(urls))
    for name in ("image_url", "video_url", "audio_url"):
        assert is_blank(result.get(name)) or not is_blank(given_names.get(name)) or result[name] in urls
    main = main_url(result)
    own = [given_names.get(name) for name in FILLED]
    own_texts = [each[0] if isinstance(each, list) and each else each for each in own]
    assert main is None or main in urls or main in own_texts


@given(output=JSON)
def test_the_argument_is_not_modified(output: Any) -> None:
    before = repr(output)
    normalise_output(output)
    assert repr(output) == before


@given(value=JSON)
def test_a_result_has_at_least_one_leaf(value: Any) -> None:
    assert leaf_count(value) >= has_output(value)


def test_a_blank_output_is_normalised_to_none() -> None:
    assert normalise_output(None) is None
    assert normalise_output("") is None
    assert normalise_output([]) is None
    assert normalise_output(None, {"works": [], "clips": {}, "title": " "}) is None
    assert normalise_output({}) == {}


def test_present_values_are_not_overwritten() -> None:
    output = {"video_url": "https://example.com/own.mp4", "video": "https://example.com/other.mp4"}
    assert named(output) == output
    assert named({"image_url": 7}) == {"image_url": 7}
    assert normalised({"url": "https://example.com/a.png", "output_files": ["own"]})["output_files"] == ["own"]


def test_an_image_in_base64_is_not_a_url() -> None:
    assert normalise_output({"image": "iVBORw0KGgo="}) == {"image": "iVBORw0KGgo="}
    assert normalise_output({"image": "data:image/png;base64,iVBO"}) == {"image": "data:image/png;base64,iVBO"}


def test_image_url_is_filled_from_image_urls_and_no_picture_of_image_url_is_repeated() -> None:
    one, two = "https://example.com/1.png", "https://example.com/2.png"
    assert named({"image_url": one, "image_urls": None}) == {"image_url": one, "image_urls": None}
    assert named({"image_urls": [one, two]}) == {"image_url": one, "image_urls": [one, two]}
    assert named({"images": [one, two]}) == {"images": [one, two], "image_url": one, "image_urls": [one, two]}


def pictures_of_the_mcp_server(output: dict[str, Any]) -> list[str]:
    """Return what PiAPI's own MCP server lists: it reads three fields, and skips `image_urls` only if it is null."""
    is_midjourney = bool(output.get("temporary_image_urls")) and output.get("image_urls", 0) is None
    several = [] if is_midjourney else output.get("image_urls") or []
    return [each for each in (output.get("image_url"), *several, *(output.get("temporary_image_urls") or [])) if each]


@pytest.mark.parametrize("image_urls", [{"image_urls": None}, {"image_urls": []}, {}])
@pytest.mark.parametrize(
    "output",
    [
        {"image_url": "https://e.com/grid.png", "temporary_image_urls": ["https://e.com/1.png", "https://e.com/2.png"]},
        {"image_url": "https://e.com/a.png"},
        {"image_url": "https://e.com/a.png", "discord_image_url": "https://e.com/d.png"},
    ],
)
def test_a_client_that_reads_all_fields_of_pictures_shows_none_twice(
    output: dict[str, Any], image_urls: dict[str, Any]
) -> None:
    shown = pictures_of_the_mcp_server(normalised({**output, **image_urls}))
    assert shown == pictures_of_the_mcp_server({**output, **image_urls})
    assert len(shown) == len(set(shown))


def test_a_cover_image_is_not_a_result() -> None:
    output = {"works": [{"cover": {"resource": "https://example.com/c.png"}, "video": {"resource": ""}}]}
    assert named(output) == output
    assert main_url(normalised(output)) is None
    assert not has_output(output)


def test_the_discord_url_of_midjourney_is_used_if_there_is_no_other() -> None:
    discord = "https://example.com/d.png"
    assert named({"discord_image_url": discord}) == {"discord_image_url": discord, "image_url": discord}


def test_what_stands_beside_the_output_is_kept_under_its_own_name_if_that_is_free() -> None:
    clips = {"c1": {"audio_url": "https://example.com/a.mp3"}}
    assert named(None, clips=clips, title="Sea") == {
        "clips": clips,
        "title": "Sea",
        "audio_url": "https://example.com/a.mp3",
    }
    assert named({"title": "own"}, title="other", text="la") == {"title": "own", "text": "la"}
    assert named("words", text="la") == {"value": "words", "text": "la"}


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
        {"prompt": "a glider", "internal_state": "completed", "created_at": "now", "video": None, "video_raw": None},
        {"image_url": "", "task_progress": 100, "actions": ["reroll"]},
        {"clips": {"c1": {"id": "c1", "status": "submitted", "audio_url": "", "metadata": {"tags": "rock"}}}},
        {"songs": [{"song_path": "", "image_path": "https://e.com/i.png", "finished": False}]},
        {
            "task": {"id": 41, "status": 99, "taskInfo": {"arguments": [{"name": "prompt", "value": "sea"}]}},
            "works": [],
        },
        {"error_messages": ["moderated"], "input_image": "https://e.com/in.png", "thumbnail_url": "https://e.com/t"},
        {"output_files": [{"url": "https://e.com/c.png", "kind": "image", "name": "cover"}]},
    ],
)
def test_an_output_without_a_result_has_no_output(output: Any) -> None:
    assert not has_output(output)


@pytest.mark.parametrize(
    "output",
    [
        *({"image_url": "https://example.com/i.png"}, {"text": "yes"}, {"score": 0.5}, {"value": "x"}),
        *("https://e.com/a.png", ["https://e.com/a.png"], {"video_raw": {"url": "https://e.com/r.mp4"}}),
        {"clips": {"c1": {"id": "c1", "audio_url": "https://e.com/a.mp3"}}},
        {"songs": [{"song_path": "https://e.com/a.mp3"}]},
        {"model_file": "https://e.com/m.glb"},
        {"image": "iVBORw0KGgo="},
    ],
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
