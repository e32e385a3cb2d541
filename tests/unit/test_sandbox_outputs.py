"""Each model family's output has the form that PiAPI's contract describes."""

from typing import Any, get_args

import pytest

from receiver.sandbox.outputs import finished_output, progress_output
from receiver.sandbox.script import Shape

BASE = "http://files.test/f/"


def output(shape: Any) -> Any:
    return finished_output(shape, BASE, "t1", {})


def test_flux_has_one_url_and_a_list() -> None:
    assert output("flux") == {
        "image_url": "http://files.test/f/t1.png",
        "image_urls": ["http://files.test/f/t1.png"],
    }


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


def test_luma_has_its_video_in_a_generation() -> None:
    assert output("luma")["generation"]["video"]["url"] == "http://files.test/f/t1.mp4"


def test_midjourney_has_four_temporary_urls_and_actions() -> None:
    made = output("midjourney")
    assert set(made) == {
        "image_url",
        "temporary_image_urls",
        "discord_image_url",
        "task_progress",
        "actions",
    }
    assert len(made["temporary_image_urls"]) == 4


def test_the_older_envelope_has_its_works_in_camel_case() -> None:
    [work] = output("old_envelope")["works"]
    assert work["resource"]["resourceWithoutWatermark"] == "http://files.test/f/t1.mp3"
    assert {"workId", "taskId", "contentType", "createTime"} <= set(work)


@pytest.mark.parametrize("shape", get_args(Shape))
def test_urls_are_unique_to_the_task(shape: Shape) -> None:
    assert "http://files.test/f/t1" in str(finished_output(shape, BASE, "t1", {}))
    assert "http://files.test/f/t1" not in str(finished_output(shape, BASE, "t2", {}))


@pytest.mark.parametrize("shape", sorted(set(get_args(Shape)) - {"old_envelope"}))
def test_progress_has_no_url(shape: Shape) -> None:
    made = progress_output(shape, 40)
    assert 40 in (made.get("percent"), made.get("progress"), made.get("task_progress"))
    assert "http" not in str(made)
