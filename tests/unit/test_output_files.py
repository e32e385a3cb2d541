"""The files of outputs: every shape that models use, and shapes that no table knows."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from receiver.domain import output_files
from receiver.domain.output_fields import BOOKKEEPING, KIND_BY_ENDING, OUTPUT_FIELDS
from receiver.domain.output_files import MOST_FILES, MOST_VALUES, find_files
from receiver.domain.outputs import main_url, normalise_output
from receiver.domain.references import look_up, parse_path
from receiver.domain.representations import result_url

GUIDE = Path(__file__).parents[2] / "deploy" / "guides" / "outputs.md"
CDN = "https://cdn.example.com/"


def normalised(output: Any, **beside: Any) -> dict[str, Any]:
    result = normalise_output(output, beside)
    assert result is not None
    return result


def files(output: Any, **beside: Any) -> list[tuple[str, str, str]]:
    """Return (name, kind, the URL without its host) of each file."""
    listed = normalised(output, **beside).get("output_files", [])
    return [(each["name"], each["kind"], each["url"].removeprefix(CDN)) for each in listed]


SHAPES: dict[str, tuple[Any, dict[str, Any], list[tuple[str, str, str]], str]] = {
    "luma": (
        {
            "video": None,
            "video_raw": {"url": CDN + "raw.mp4", "width": 1360},
            "thumbnail": {"url": CDN + "thumb.jpg"},
            "last_frame": {"url": CDN + "last.jpg"},
        },
        {"video_url": "raw.mp4"},
        [
            ("video_raw.url", "video", "raw.mp4"),
            ("thumbnail.url", "image", "thumb.jpg"),
            ("last_frame.url", "image", "last.jpg"),
        ],
        "raw.mp4",
    ),
    "suno": (
        {"clips": {"c1": {"audio_url": CDN + "a.mp3", "video_url": CDN + "a.mp4", "image_url": CDN + "a.png"}}},
        {"audio_url": "a.mp3", "video_url": "a.mp4"},
        [
            ("clips.c1.video_url", "video", "a.mp4"),
            ("clips.c1.audio_url", "audio", "a.mp3"),
            ("clips.c1.image_url", "image", "a.png"),
        ],
        "a.mp4",
    ),
    "suno, the video still missing": (
        {"clips": {"a-1": {"audio_url": CDN + "a.mp3", "video_url": "", "image_url": CDN + "a.png"}}},
        {"audio_url": "a.mp3"},
        [('clips."a-1".audio_url', "audio", "a.mp3"), ('clips."a-1".image_url', "image", "a.png")],
        "a.mp3",
    ),
    "udio": (
        {"songs": [{"song_path": CDN + "s1.mp3", "image_path": CDN + "s1.jpg"}, {"song_path": CDN + "s2"}]},
        {"audio_url": "s1.mp3"},
        [
            ("songs[0].song_path", "audio", "s1.mp3"),
            ("songs[1].song_path", "audio", "s2"),
            ("songs[0].image_path", "image", "s1.jpg"),
        ],
        "s1.mp3",
    ),
    "trellis": (
        {"no_background_image": CDN + "n.png", "combined_video": CDN + "c.mp4", "model_file": CDN + "m.glb"},
        {"video_url": "c.mp4"},
        [
            ("combined_video", "video", "c.mp4"),
            ("model_file", "model", "m.glb"),
            ("no_background_image", "image", "n.png"),
        ],
        "m.glb",
    ),
    "images": (
        {"images": [CDN + "1", {"url": CDN + "2", "content_type": "image/webp"}]},
        {"image_url": "1", "image_urls": ["1", "2"]},
        [("images[0]", "image", "1"), ("images[1].url", "image", "2")],
        "1",
    ),
    "url": (
        {"url": CDN + "v.webm?sig=a.png"},
        {"video_url": "v.webm?sig=a.png"},
        [("url", "video", "v.webm?sig=a.png")],
        "v.webm?sig=a.png",
    ),
    "a url without an ending": ({"url": CDN + "abc"}, {}, [("url", "other", "abc")], "abc"),
    "camel case": ({"videoUrl": CDN + "v"}, {"video_url": "v"}, [("videoUrl", "video", "v")], "v"),
    "works of sound": (
        {
            "works": [
                {"content_type": "audio", "audio": {"resource": CDN + "1"}, "cover": {"resource": CDN + "c"}},
                {"contentType": "audio/mpeg", "resource": {"resource": CDN + "2"}},
            ]
        },
        {"audio_url": "2"},
        [
            ("works[1].resource.resource", "audio", "2"),
            ("works[0].audio.resource", "audio", "1"),
            ("works[0].cover.resource", "image", "c"),
        ],
        "2",
    ),
    "a plain URL": (
        CDN + "a.png",
        {"image_url": "a.png", "image_urls": ["a.png"]},
        [("value", "image", "a.png")],
        "a.png",
    ),
    "a list of URLs": (
        [CDN + "a.mp4", CDN + "b.mp4"],
        {"video_url": "a.mp4"},
        [("value[0]", "video", "a.mp4"), ("value[1]", "video", "b.mp4")],
        "a.mp4",
    ),
    "a list of objects": (
        [{"file": {"href": CDN + "m.obj"}}, {"url": CDN + "t", "mime_type": "audio/wav"}],
        {"audio_url": "t"},
        [("value[1].url", "audio", "t"), ("value[0].file.href", "model", "m.obj")],
        "m.obj",
    ),
    "unknown names at any depth": (
        {"data": {"parts": [{"render": {"final_movie": CDN + "f"}}, {"x": CDN + "s.flac#t=1"}]}},
        {"video_url": "f", "audio_url": "s.flac#t=1"},
        [("data.parts[0].render.final_movie", "video", "f"), ("data.parts[1].x", "audio", "s.flac#t=1")],
        "f",
    ),
    "a list of songs of another provider": (
        {"result": [{"audio_url": CDN + "a", "image_url": CDN + "i", "image_large_url": CDN + "l"}]},
        {"audio_url": "a"},
        [
            ("result[0].audio_url", "audio", "a"),
            ("result[0].image_url", "image", "i"),
            ("result[0].image_large_url", "image", "l"),
        ],
        "a",
    ),
    "a repeated input": (
        {"input_image": CDN + "in.png", "reference_images": [CDN + "ref.png"], "video": CDN + "v"},
        {"video_url": "v"},
        [
            ("video", "video", "v"),
            ("input_image", "image", "in.png"),
            ("reference_images[0]", "image", "ref.png"),
        ],
        "v",
    ),
    "pages and calls": (
        {"docs_url": CDN + "d.pdf", "share": CDN + "s", "urls": {"get": CDN + "g", "cancel": CDN + "c"}, "page": CDN},
        {},
        [],
        "",
    ),
    "texts and archives": (
        {"subtitles": CDN + "s.srt", "archive": CDN + "all.ZIP"},
        {},
        [("subtitles", "text", "s.srt"), ("archive", "other", "all.ZIP")],
        "s.srt",
    ),
    "JSON in a text": (
        {"resultJson": f'{{"resultUrls": ["{CDN}r.mp4"], "cover": "{CDN}c.png"}}', "param": '{"a": "http"', "b": "[]"},
        {"video_url": "r.mp4"},
        [("resultJson", "video", "r.mp4"), ("resultJson", "image", "c.png")],
        "r.mp4",
    ),
    "an ending as the content type": (
        {"works": [{"contentType": "mp3", "resource": {"resource": CDN + "1"}}]},
        {"audio_url": "1"},
        [("works[0].resource.resource", "audio", "1")],
        "1",
    ),
    "an object in the field of a URL": (
        {"image_url": {"url": CDN + "1", "width": 7}, "video_url": "none"},
        {},
        [("image_url.url", "image", "1")],
        "1",
    ),
    "what is no URL": (
        {"text": CDN + " is a site", "image": "aGVsbG8=", "video": "data:video/mp4;base64,AA", "audio": "//x/a.mp3"},
        {},
        [],
        "",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_files_of_every_shape_are_found_and_named(shape: str) -> None:
    output, names, listed, main = SHAPES[shape]
    result = normalised(output)
    added = {name: result[name] for name in ("image_url", "image_urls", "video_url", "audio_url") if name in result}
    kept = set(output) if isinstance(output, dict) else set()
    expected = {
        name: [CDN + each for each in value] if isinstance(value, list) else CDN + value
        for name, value in names.items()
    }
    assert {name: value for name, value in added.items() if name not in kept} == expected
    assert files(output) == listed
    assert main_url(result) == result_url(result) == (CDN + main if main else None)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_name_of_a_file_is_the_path_of_a_reference_to_it(shape: str) -> None:
    result = normalised(SHAPES[shape][0])
    for file in result.get("output_files", []):
        found = look_up(parse_path(file["name"]), result)
        assert found == file["url"] or (shape == "JSON in a text" and file["url"] in str(found))


def test_a_content_type_is_shown_where_it_is_that_of_the_file() -> None:
    output = {"content_type": "video/mp4", "file": CDN + "a", "poster": CDN + "b"}
    assert normalised(output)["output_files"] == [
        {"url": CDN + "a", "kind": "video", "name": "file", "content_type": "video/mp4"},
        {"url": CDN + "b", "kind": "image", "name": "poster"},
    ]
    typed = [{"type": "video", "url": CDN + "a"}, {"type": "m2v_txt2video", "url": CDN + "b"}]
    assert [each["kind"] for each in normalised(typed)["output_files"]] == ["video", "other"]
    unknown = {"file": {"url": CDN + "a.mp4", "content_type": "application/octet-stream"}}
    assert [each["kind"] for each in normalised(unknown)["output_files"]] == ["video"]


def test_the_order_of_known_names_does_not_depend_on_the_order_of_the_object() -> None:
    names = {"model_file": "m.glb", "audio_url": "a", "video_url": "v", "cover_url": "c", "image_url": "i"}
    forwards = {name: CDN + value for name, value in names.items()}
    backwards = dict(reversed(forwards.items()))
    assert files(forwards) == files(backwards)
    assert [name for name, _, _ in files(forwards)] == [
        "video_url",
        "image_url",
        "audio_url",
        "model_file",
        "cover_url",
    ]


def test_a_url_in_two_fields_is_listed_once_under_the_preferred_one() -> None:
    assert files({"download_url": CDN + "v.mp4", "video_url": CDN + "v.mp4"}) == [("video_url", "video", "v.mp4")]


def test_of_several_urls_in_one_object_only_the_preferred_one_is_a_result() -> None:
    marked = {"resource": CDN + "marked.png", "resource_without_watermark": CDN + "clean.png"}
    output = {"works": [{"image": marked}, {"image": {"resource": CDN + "second.png"}}]}
    assert normalised(output)["image_urls"] == [CDN + "clean.png", CDN + "second.png"]
    assert [url for _, _, url in files(output)] == ["clean.png", "second.png", "marked.png"]


def test_the_number_of_files_and_the_work_are_bounded() -> None:
    many = {"images": [f"{CDN}{number}.png" for number in range(100_000)]}
    assert len(normalised(many)["output_files"]) == MOST_FILES
    wide = {f"field_{number}": {"file": f"{CDN}{number}.png"} for number in range(100_000)}
    assert len(normalised(wide)["output_files"]) == MOST_FILES
    long_names = {"a" * 100_000: {"b" * 100_000: CDN + "x.png"}}
    assert len(orjson.dumps(normalised(long_names)["output_files"])) < 1000


@pytest.mark.parametrize(
    "output",
    [
        {"urls": [f"{CDN}{number}.png" for number in range(20_000)]},
        {"pages": [f"{CDN}{number}" for number in range(20_000)]},
        {"pages": {f"page_{number}": f"{CDN}{number}" for number in range(20_000)}},
    ],
)
def test_no_more_places_are_written_down_than_are_looked_at(
    output: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[str] = []
    joined = output_files._joined

    def writing_down(path: str, part: str | int) -> str:
        places.append(path)
        return joined(path, part)

    monkeypatch.setattr(output_files, "_joined", writing_down)
    find_files(output)
    assert len(places) <= MOST_VALUES + MOST_FILES + 1


def test_a_url_deeper_than_the_stack_is_found() -> None:
    deep: Any = CDN + "deep.png"
    for _ in range(3000):
        deep = [deep]
    assert normalised({"x": deep})["image_url"] == CDN + "deep.png"


def test_the_guide_shows_the_table_of_fields() -> None:
    shown = re.findall(
        r"^\| `([^`]+)` \| (\S+) \| (result|beside) \| ([^|]+) \|$", GUIDE.read_text("utf-8"), re.MULTILINE
    )
    table = [
        (field.path, field.kind or "by type", "result" if field.is_result else "beside", field.models)
        for field in OUTPUT_FIELDS
    ]
    assert [(path, kind.replace("-", " "), role, models.strip()) for path, kind, role, models in shown] == table


def test_the_guide_names_every_ending() -> None:
    page = GUIDE.read_text("utf-8")
    shown = dict.fromkeys(
        re.findall(r"^\| (image|video|audio|model|text|other) \| ([a-z0-9 ]+) \|$", page, re.MULTILINE)
    )
    named = {ending: kind for kind, endings in shown for ending in endings.split()}
    assert named == KIND_BY_ENDING


def test_no_field_of_the_table_is_bookkeeping() -> None:
    assert {field.path.split("[")[0].split(".")[0] for field in OUTPUT_FIELDS} & BOOKKEEPING == set()
