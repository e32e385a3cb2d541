"""What each client reads from the service's answers: the paths of the values that it shows, saves or hands on.

A path is a list of names with dots between; `*` stands for any one name. The values of tasks are URLs or texts.
"""

from collections.abc import Mapping

_IMAGE = ("data.output.image_url",)
_VIDEO = ("data.output.video_url",)
_SOUND = ("data.output.audio_url",)
_KLING = ("data.output.video_url", "data.output.works.0.video.resource_without_watermark")
_LUMA = tuple(
    f"data.output.{frame}.{name}" for frame in ("video_raw", "last_frame") for name in ("url", "width", "height")
)
_LYRICS = ("data.output.lyrics_pairs.0.title", "data.output.lyrics_pairs.0.text")
_TRELLIS = ("data.output.model_file", "data.output.combined_video", "data.output.no_background_image")
_CHAT = ("choices.0.message.content",)
_UPLOADED = ("data.url",)

SKILLS: Mapping[str, tuple[str, ...]] = {
    "submit": ("data.task_id",),
    "run": _LUMA,
    "imagine": ("data.output.image_url", "data.output.temporary_image_urls.3"),
    "flux": _IMAGE,
    "kling": _KLING,
    "suno": ("data.output.songs.0.song_path",),
    "faceswap": _IMAGE,
    "wait and result": _SOUND,
    "llm": _CHAT,
    "llm --json-mode": _CHAT,
}
MCP_SERVER: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "image_faceswap",
            "image_rmbg",
            "image_segment",
            "image_upscale",
            "generate_image",
            "modify_image",
            "derive_image",
            "generate_image_controlnet",
            "midjourney_imagine",
        ),
        _IMAGE,
    ),
    **dict.fromkeys(
        (
            "video_faceswap",
            "video_upscale",
            "generate_video_hunyuan",
            "generate_video_skyreels",
            "generate_video_wan",
            "generate_video_hailuo",
        ),
        _VIDEO,
    ),
    **dict.fromkeys(("generate_music_for_video", "tts_zero_shot"), _SOUND),
    **dict.fromkeys(("generate_video_kling", "generate_video_effect_kling"), _KLING),
    "generate_video_luma": _LUMA,
    "generate_music_suno": ("data.output.clips.*.audio_url", "data.output.clips.*.image_url"),
    "generate_3d_model": _TRELLIS,
}
N8N_NODES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("flux", "flux with lora", "flux image", "flux binary"), _IMAGE),
    **dict.fromkeys(("luma text", "luma image", "luma extend"), _LUMA),
    **dict.fromkeys(("wan text", "wan image", "hunyuan text", "hunyuan image", "skyreels"), _VIDEO),
    **dict.fromkeys(("kling text", "kling image", "kling extend", "kling lip sync", "kling effects"), _KLING),
    "kling try on": ("data.output.works.0.image.resource_without_watermark",),
    **dict.fromkeys(("hailuo text", "hailuo image", "hailuo subject"), _VIDEO),
    "trellis": _TRELLIS,
    **dict.fromkeys(("face swap", "image upscale", "background", "segment"), _IMAGE),
    **dict.fromkeys(("video face swap", "video upscale"), _VIDEO),
    **dict.fromkeys(("mmaudio", "diffrhythm", "tts"), _SOUND),
    **dict.fromkeys(("midjourney", "midjourney upscale"), ("data.output.temporary_image_urls.0",)),
    "udio": ("data.output.songs.0.song_path", "data.output.songs.1.song_path"),
    "lyrics": _LYRICS,
    "status": _IMAGE,
    "status url": ("data.output.video_url",),
    "status binary": _IMAGE,
    **dict.fromkeys(("upload", "upload by hand"), _UPLOADED),
    **dict.fromkeys(("chat image", "chat edit"), ()),
}
READS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "piapi-skills": SKILLS,
    "piapi-mcp-server": MCP_SERVER,
    "n8n-nodes-piapi": N8N_NODES,
}
