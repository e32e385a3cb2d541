"""The output of each model family, which differ in where the URLs are: the table "Output, by model family" of PiAPI's
contract. Pure.
"""

from collections.abc import Mapping
from typing import Any

from receiver.sandbox.sample_models import brand_output, campaign_output
from receiver.sandbox.script import Shape

_EXTENSION: dict[Shape, str] = {"flux": "png", "midjourney": "png", "audio": "mp3", "old_envelope": "mp3"}
_DONE = 99


def finished_output(shape: Shape, base_url: str, task_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a completed task's output for the input `given`; its URLs begin with `base_url` and the task's id."""
    files = f"{base_url.rstrip('/')}/{task_id}"
    media = f"{files}.{_EXTENSION.get(shape, 'mp4')}"
    match shape:
        case "flux":
            return {"image_url": media, "image_urls": [media]}
        case "hailuo":
            return {
                "video_url": media,
                "download_url": f"{files}-download.mp4",
                "cover_url": f"{files}-cover.png",
                "percent": 100,
            }
        case "wan":
            return {"video_url": media}
        case "kling":
            return {"video": media}
        case "kling_works":
            return _kling_works(files)
        case "luma":
            return {"generation": {"id": task_id, "state": "completed", "video": {"url": media}}}
        case "audio":
            return {"audio_url": media}
        case "midjourney":
            return {
                "image_url": media,
                "temporary_image_urls": [f"{files}-{index}.png" for index in range(4)],
                "discord_image_url": f"{files}-discord.png",
                "task_progress": 100,
                "actions": ["upscale1", "variation1", "reroll"],
            }
        case "old_envelope":
            return {"works": [_older_work(files, media)]}
        case "brand":
            return brand_output(files, given)
        case "campaign":
            return campaign_output(files, given)


def progress_output(shape: Shape, percent: int) -> dict[str, Any]:
    """Return the output of a task that is still processing."""
    match shape:
        case "midjourney":
            return {"image_url": "", "task_progress": percent, "actions": []}
        case "hailuo":
            return {"video_url": "", "percent": percent, "progress": percent}
        case "kling_works":
            return {"status": 10, "works": [], "percent": percent, "progress": percent}
        case "old_envelope":
            return {"works": []}
        case _:
            return {"percent": percent, "progress": percent}


def _kling_works(files: str) -> dict[str, Any]:
    size = {"height": 1440, "width": 1440, "duration": 5100}
    video = {
        "resource": f"{files}-watermarked.mp4",
        "resource_without_watermark": f"{files}.mp4",
        **size,
    }
    cover = {"resource": f"{files}-cover.png", "resource_without_watermark": "", **size}
    work = {
        "content_type": "video",
        "status": _DONE,
        "type": "m2v_txt2video",
        "cover": cover,
        "video": video,
    }
    return {"type": "m2v_txt2video", "status": _DONE, "works": [work]}


def _older_work(files: str, media: str) -> dict[str, Any]:
    return {
        "workId": 1,
        "taskId": 1,
        "type": "txt2audio",
        "status": _DONE,
        "contentType": "audio",
        "resource": {
            "resource": f"{files}-watermarked.mp3",
            "resourceWithoutWatermark": media,
            "height": 0,
            "width": 0,
            "duration": 5000,
        },
        "cover": {"resource": f"{files}-cover.png", "height": 512, "width": 512, "duration": 0},
        "createTime": 0,
    }
