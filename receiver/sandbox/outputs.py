"""The output of each model family, which differ in where the URLs are: the table "Output, by model family" of PiAPI's
contract. Pure.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from receiver.sandbox.families import Shape
from receiver.sandbox.sample_models import brand_output, campaign_output

_EXTENSION: dict[Shape, str] = {
    **dict.fromkeys(("flux", "image", "images", "midjourney"), "png"),
    **dict.fromkeys(("audio", "old_envelope"), "mp3"),
}
_DONE = 99
_SIZE = {"width": 1360, "height": 752}


def finished_output(shape: Shape, base_url: str, task_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a completed task's output for the input `given`; its URLs begin with `base_url` and the task's id."""
    files = f"{base_url.rstrip('/')}/{task_id}"
    media = f"{files}.{_EXTENSION.get(shape, 'mp4')}"
    match shape:
        case "flux":
            return {"image_url": media, "image_urls": None}
        case "image":
            return {"image_url": media}
        case "images":
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
            return {"video_url": media, **_kling_works(files, "video", "mp4")}
        case "kling_try_on":
            return _kling_works(files, "image", "png")
        case "luma":
            return _luma(files, task_id, given)
        case "audio":
            return {"audio_url": media}
        case "suno" | "old_suno":
            return {"clips": {clip["id"]: clip for clip in (_suno_clip(files, task_id, n, given) for n in (1, 2))}}
        case "udio":
            return {"songs": [_udio_song(files, task_id, number, given) for number in (1, 2)]}
        case "lyrics":
            title, text = str(given.get("prompt", "")), "[Verse]\nThe first line\n\n[Chorus]\nThe second line"
            return {"lyrics_pairs": [{"title": f"{title} {number}".strip(), "text": text} for number in (1, 2)]}
        case "trellis":
            return {
                "model_file": f"{files}.glb",
                "combined_video": f"{files}-combined.mp4",
                "no_background_image": f"{files}-no-background.png",
            }
        case "midjourney":
            return {
                "image_url": media,
                "image_urls": None,
                "temporary_image_urls": [f"{files}-{index}.png" for index in range(4)],
                "discord_image_url": f"{files}-discord.png",
                "task_progress": 100,
                "actions": ["upscale1", "variation1", "reroll"],
                "intermediate_image_urls": None,
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
            return {"image_url": "", "image_urls": None, "task_progress": percent, "actions": []}
        case "hailuo":
            return {"video_url": "", "percent": percent, "progress": percent}
        case "kling_works" | "kling_try_on":
            return {"status": 10, "works": [], "percent": percent, "progress": percent}
        case "luma":
            nothing = dict.fromkeys(("video", "video_raw", "thumbnail", "last_frame"))
            return {"internal_state": "processing", **nothing, "percent": percent, "progress": percent}
        case "old_envelope":
            return {"works": []}
        case _:
            return {"percent": percent, "progress": percent}


def _kling_works(files: str, kind: str, extension: str) -> dict[str, Any]:
    size = {"height": 1440, "width": 1440, "duration": 5100 if kind == "video" else 0}
    result = {
        "resource": f"{files}-watermarked.{extension}",
        "resource_without_watermark": f"{files}.{extension}",
        **size,
    }
    cover = {"resource": f"{files}-cover.png", "resource_without_watermark": "", **size}
    work_type = "m2v_txt2video" if kind == "video" else "mmu_img2img"
    work = {"content_type": kind, "status": _DONE, "type": work_type, "cover": cover, kind: result}
    return {"type": work_type, "status": _DONE, "works": [work]}


def _luma(files: str, task_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    video = {"url": f"{files}.mp4", **_SIZE}
    last_frame = {"url": f"{files}-last-frame.png", **_SIZE}
    return {
        "prompt": str(given.get("prompt", "")),
        "internal_state": "completed",
        "video": None,
        "video_raw": video,
        "thumbnail": {"url": f"{files}-thumbnail.png", **_SIZE},
        "last_frame": last_frame,
        "generation": {"id": task_id, "state": "completed", "video": video, "last_frame": last_frame},
    }


def _suno_clip(files: str, task_id: str, number: int, given: Mapping[str, Any]) -> dict[str, Any]:
    song = f"{files}-{number}"
    prompt = str(given.get("prompt") or given.get("gpt_description_prompt") or "")
    return {
        "id": _id_of(task_id, number),
        "title": str(given.get("title", "")),
        "status": "complete",
        "audio_url": f"{song}.mp3",
        "video_url": f"{song}.mp4",
        "image_url": f"{song}.png",
        "image_large_url": f"{song}-large.png",
        "is_video_pending": False,
        "major_model_version": "v3",
        "model_name": "chirp-v3",
        "metadata": {"tags": str(given.get("tags", "")), "prompt": prompt, "duration": 120.0},
    }


def _udio_song(files: str, task_id: str, number: int, given: Mapping[str, Any]) -> dict[str, Any]:
    song = f"{files}-{number}"
    return {
        "id": _id_of(task_id, number),
        "title": f"Song {number}",
        "song_path": f"{song}.mp3",
        "image_path": f"{song}.png",
        "lyrics": str(given.get("lyrics", "")),
        "prompt": str(given.get("gpt_description_prompt", "")),
        "tags": [],
        "duration": 32.76,
        "finished": True,
    }


def _id_of(task_id: str, number: int) -> str:
    """Return the id of a task's clip: always the same for the same task and number."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task_id}/{number}"))


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
