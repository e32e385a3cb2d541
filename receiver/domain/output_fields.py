"""The fields in which the outputs of models have their files: one table, and the words by which other fields are told.

Source: `receiver/providers/piapi/CONTRACT.md`, "Output, by model family" and "The older envelope". The page
`deploy/guides/outputs.md` shows the table.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

IMAGE, VIDEO, AUDIO, MODEL, TEXT, OTHER = "image", "video", "audio", "model", "text", "other"
"""The kinds of files. A `model` is a 3D file."""


class OutputField(Struct, frozen=True):
    """A field in which a model has files: URLs, objects with a URL, or lists of these.

    In `path`, `[]` stands for every item of a list, `{}` for every value of an object or list. `kind` is None if the
    content type beside it, or else the URL's ending, tells the kind. `is_result` is false for what comes with a result
    and is never chosen as one, such as a cover.
    """

    path: str
    kind: str | None
    models: str
    is_result: bool = True


OUTPUT_FIELDS = (
    OutputField("video_url", VIDEO, "hailuo, wan, skyreels, hunyuan, framepack, AI hug, kling"),
    OutputField("video", VIDEO, "kling turbo, 3 and omni, veo3, sora2, seedance, luma"),
    OutputField("works[].video", VIDEO, "kling, the older form"),
    OutputField("works[].resource", None, "the older envelope: mmaudio, ace-step"),
    OutputField("generation.video", VIDEO, "luma"),
    OutputField("video_raw", VIDEO, "luma"),
    OutputField("videoUrl", VIDEO, "models that write names in camel case"),
    OutputField("videos", VIDEO, "models with several videos"),
    OutputField("combined_video", VIDEO, "trellis"),
    OutputField("clips{}.video_url", VIDEO, "suno"),
    OutputField("image_url", IMAGE, "flux, image tools, midjourney, most image models"),
    OutputField("image", IMAGE, "image tools"),
    OutputField("works[].image", IMAGE, "kling, the older form"),
    OutputField("generation.image", IMAGE, "luma"),
    OutputField("image_urls", IMAGE, "flux, image tools, most image models"),
    OutputField("temporary_image_urls", IMAGE, "midjourney"),
    OutputField("discord_image_url", IMAGE, "midjourney"),
    OutputField("imageUrl", IMAGE, "models that write names in camel case"),
    OutputField("images", IMAGE, "models with several pictures"),
    OutputField("audio_url", AUDIO, "ace-step, diffrhythm, tts, mmaudio"),
    OutputField("audio", AUDIO, "audio models"),
    OutputField("works[].audio", AUDIO, "the older envelope"),
    OutputField("generation.audio", AUDIO, "audio models"),
    OutputField("audioUrl", AUDIO, "models that write names in camel case"),
    OutputField("clips{}.audio_url", AUDIO, "suno"),
    OutputField("songs[].song_path", AUDIO, "udio"),
    OutputField("audios", AUDIO, "models with several sounds"),
    OutputField("model_file", MODEL, "trellis"),
    OutputField("url", None, "models with one file"),
    OutputField("value", None, "an output that is itself a URL, or a list"),
    OutputField("no_background_image", IMAGE, "trellis", is_result=False),
    OutputField("works[].cover", IMAGE, "kling, the older form; the older envelope", is_result=False),
    OutputField("cover_url", IMAGE, "hailuo", is_result=False),
    OutputField("thumbnail", IMAGE, "luma", is_result=False),
    OutputField("last_frame", IMAGE, "luma", is_result=False),
    OutputField("generation.last_frame", IMAGE, "luma", is_result=False),
    OutputField("clips{}.image_url", IMAGE, "suno", is_result=False),
    OutputField("clips{}.image_large_url", IMAGE, "suno", is_result=False),
    OutputField("songs[].image_path", IMAGE, "udio", is_result=False),
    OutputField("intermediate_image_urls", IMAGE, "midjourney", is_result=False),
)
"""The table. Of two fields that both have a result of a kind, the one further up is preferred."""

URL_NAMES = ("resource_without_watermark", "resourceWithoutWatermark", "resource", "url", "uri", "href", "src")
"""The fields in which an object may have its URL, the preferred one first."""
CONTENT_TYPE_NAMES = ("content_type", "contentType", "mime_type", "mimeType", "media_type", "mediaType")
BOOKKEEPING = frozenset(
    {"percent", "progress", "task_progress", "status", "state", "internal_state", "type", *CONTENT_TYPE_NAMES}
    | {"id", "workId", "taskId", "task_id", "userId", "user_id", "index", "task", "metadata", "actions", "prompt"}
    | {"createTime", "updateTime", "created_at", "updated_at", "width", "height", "duration", "size", "format"}
    | {"model", "model_name", "model_version", "major_model_version", "finished", "is_video_pending", "output_files"}
    | {"error", "errors", "error_message", "error_messages", "fail_reason", "failure_reason", "queue_position"}
    | {"seed", "seeds", "steps", "fps", "resolution", "aspect_ratio", "guidance_scale", "negative_prompt", "timings"}
    | {"inference_time", "has_nsfw_concepts", "nsfw", "cost", "credits"}
)
"""Fields that models also fill when there is no result, and the fields of a failure."""

_ENDINGS = {
    IMAGE: "png jpg jpeg jfif webp gif bmp tif tiff svg avif heic heif ico psd exr hdr",
    VIDEO: "mp4 m4v mov webm mkv avi mpg mpeg m3u8 ogv flv wmv ts 3gp",
    AUDIO: "mp3 wav flac ogg oga opus m4a aac aif aiff wma mid midi",
    MODEL: "glb gltf obj fbx stl ply usdz usd 3mf dae splat spz blend",
    TEXT: "txt md srt vtt ass lrc json jsonl csv tsv xml yaml",
    OTHER: "zip gz tar 7z rar pdf bin safetensors ckpt onnx pt npz",
}
KIND_BY_ENDING = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()}
"""The kind of a file by the ending of its URL's path, in lower case, without the dot."""

_KIND_WORDS = {
    IMAGE: "image images img imgs picture pictures pic pics photo photos png jpg jpeg gif webp drawing screenshot"
    " cover covers thumbnail thumbnails thumb thumbs poster avatar icon logo frame mask",
    VIDEO: "video videos movie movies film mp4 animation webm",
    AUDIO: "audio audios song songs music sound sounds voice speech vocal vocals mp3 wav stem stems instrumental track"
    " tracks podcast",
    MODEL: "mesh glb gltf obj fbx stl usdz ply 3d gaussian",
    TEXT: "text txt lyric lyrics subtitle subtitles caption captions transcript transcription srt vtt",
}
_KIND_BY_WORD = {word: kind for kind, words in _KIND_WORDS.items() for word in words.split()}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILE_WORDS = _words(
    "url urls uri uris href src link links file files path paths download downloads output outputs result results"
    " resource resources asset assets media value data artifact artifacts content generated"
)
_BESIDE_WORDS = _words(
    "cover covers thumbnail thumbnails thumb thumbs poster preview previews avatar icon logo frame mask input inputs"
    " source init reference references ref original intermediate"
)
_NO_FILE_WORDS = _words(
    "doc docs documentation help homepage website webpage page site license licence terms policy webhook callback"
    " endpoint api action actions config share profile get cancel stream self next prev previous upload pricing"
)
_MODEL_COMPANIONS = frozenset({"file", "files", "url", "urls", "path"})
LONGEST_NAME = 100
"""Characters of a name that are looked at."""
_PARTS = re.compile(r"3[dD]|[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*|[0-9]+")


class NameMeaning(NamedTuple):
    """What the name of a field tells about the URLs in it; `kind` is None if it tells none."""

    kind: str | None
    is_file: bool
    is_beside: bool
    is_no_file: bool


@lru_cache(maxsize=4096)
def meaning_of(name: str) -> NameMeaning:
    """Return what a field's name tells: `last_frame_url` is an image, a file, and beside the result.

    Of two words for a kind the last one counts: `image_to_video_url` is a video.
    """
    parts = [part.lower() for part in _PARTS.findall(name[:LONGEST_NAME])]
    words = [word for part in parts for word in (part, part.rstrip("0123456789"))]
    kinds = [_KIND_BY_WORD[word] for word in words if word in _KIND_BY_WORD]
    if not kinds and "model" in words and _MODEL_COMPANIONS.intersection(words):
        kinds = [MODEL]
    return NameMeaning(
        kind=kinds[-1] if kinds else None,
        is_file=not _FILE_WORDS.isdisjoint(words),
        is_beside=not _BESIDE_WORDS.isdisjoint(words),
        is_no_file=not _NO_FILE_WORDS.isdisjoint(words),
    )


@lru_cache(maxsize=4096)
def meaning_within(outer: NameMeaning, name: str) -> NameMeaning:
    """Return what a field's name tells within another field: the inner name tells the kind, if it tells one."""
    own = meaning_of(name)
    return NameMeaning(
        kind=own.kind or outer.kind,
        is_file=own.is_file or own.kind is not None,
        is_beside=own.is_beside or outer.is_beside,
        is_no_file=own.is_no_file or outer.is_no_file,
    )
