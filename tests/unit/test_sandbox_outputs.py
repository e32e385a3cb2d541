"""Each model family's output has the form that PiAPI's contract describes."""

from typing import Any, get_args

import pytest

from receiver.sandbox.families import Shape
from receiver.sandbox.outputs import finished_output, progress_output

BASE = "http://files.test/f/"


def output(shape: Any) -> Any:
    return finished_output(shape, BASE, "t1", {})


def test_flux_has_one_url_and_no_list() -> None:
    assert output("flux") == {"image_url": "http://files.test/f/t1.png", "image_urls": None}


def test_other_images_have_a_url_alone_or_also_a_list() -> None:
    assert output("image") == {"image_url": "http://files.test/f/t1.png"}
    assert output("images") == {"image_url": "http://files.test/f/t1.png", "image_urls": ["http://files.test/f/t1.png"]}


def test_hailuo_also_has_a_download_and_a_cover() -> None:
    assert set(output("hailuo")) == {"video_url", "download_url", "cover_url", "percent"}


def test_wan_kling_and_audio_have_a_single_url() -> None:
    assert output("wan") == {"video_url": "http://files.test/f/t1.mp4"}
    assert output("kling") == {"video": "http://files.test/f/t1.mp4"}
    assert output("audio") == {"audio_url": "http://files.test/f/t1.mp3"}


def test_the_older_kling_has_works_with_and_without_watermark() -> None:
    [work] = output("kling_works")["works"]
    assert work["status"] == 99
    assert work["video"]["resource"] != work["video"]["resource_without_watermark"]
    assert work["cover"]["resource"]
    assert output("kling_works")["video_url"] == work["video"]["resource_without_watermark"]
    [tried_on] = output("kling_try_on")["works"]
    assert (tried_on["content_type"], tried_on["image"]["resource_without_watermark"][-4:]) == ("image", ".png")


def test_luma_has_its_video_raw_and_in_a_generation() -> None:
    made = output("luma")
    assert made["video"] is None
    assert made["video_raw"] == made["generation"]["video"]
    assert made["video_raw"]["url"] == "http://files.test/f/t1.mp4"
    assert {"url", "width", "height"} == set(made["last_frame"])


def test_suno_has_clips_by_their_ids() -> None:
    clips = output("suno")["clips"]
    assert len(clips) == 2
    assert all(clip["id"] == key for key, clip in clips.items())
    assert {clip["audio_url"][-4:] for clip in clips.values()} == {".mp3"}
    assert {clip["video_url"][-4:] for clip in clips.values()} == {".mp4"}


def test_udio_has_songs_with_paths() -> None:
    songs = output("udio")["songs"]
    assert [(song["song_path"][-6:], song["image_path"][-6:]) for song in songs] == [
        ("-1.mp3", "-1.png"),
        ("-2.mp3", "-2.png"),
    ]


def test_lyrics_are_texts_without_a_url() -> None:
    made = finished_output("lyrics", BASE, "t1", {"prompt": "egrets"})
    assert [pair["title"] for pair in made["lyrics_pairs"]] == ["egrets 1", "egrets 2"]
    assert "http" not in str(made)


def test_trellis_has_a_model_a_video_and_an_image() -> None:
    assert output("trellis") == {
        "model_file": "http://files.test/f/t1.glb",
        "combined_video": "http://files.test/f/t1-combined.mp4",
        "no_background_image": "http://files.test/f/t1-no-background.png",
    }


def test_midjourney_has_four_temporary_urls_and_actions() -> None:
    made = output("midjourney")
    assert set(made) == {
        "image_url",
        "image_urls",
        "temporary_image_urls",
        "discord_image_url",
        "task_progress",
        "actions",
        "intermediate_image_urls",
    }
    assert made["image_urls"] is None
    assert len(made["temporary_image_urls"]) == 4


def test_the_older_envelope_has_its_works_in_camel_case() -> None:
    [work] = output("old_envelope")["works"]
    assert work["resource"]["resourceWithoutWatermark"] == "http://files.test/f/t1.mp3"
    assert {"workId", "taskId", "contentType", "createTime"} <= set(work)


@pytest.mark.parametrize("shape", sorted(set(get_args(Shape)) - {"lyrics"}))
def test_urls_are_unique_to_the_task(shape: Shape) -> None:
    assert "http://files.test/f/t1" in str(finished_output(shape, BASE, "t1", {}))
    assert "http://files.test/f/t1" not in str(finished_output(shape, BASE, "t2", {}))


@pytest.mark.parametrize("shape", sorted(set(get_args(Shape)) - {"old_envelope"}))
def test_progress_has_no_url(shape: Shape) -> None:
    made = progress_output(shape, 40)
    assert 40 in (made.get("percent"), made.get("progress"), made.get("task_progress"))
    assert "http" not in str(made)
