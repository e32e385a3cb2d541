"""The model families: their names in PiAPI's account paths, their models, and how they report. Pure.

Sources: `receiver/providers/piapi/CONTRACT.md`, "Output, by model family", "Status" and "Lists and account".
Families that PiAPI's histories do not name (of later years) have the name of their models.
"""

import re
from functools import lru_cache
from typing import Literal

from msgspec import Struct

Shape = Literal[
    "flux",
    "image",
    "images",
    "hailuo",
    "kling",
    "kling_works",
    "kling_try_on",
    "luma",
    "audio",
    "suno",
    "old_suno",
    "udio",
    "lyrics",
    "trellis",
    "midjourney",
    "old_envelope",
    "wan",
    "brand",
    "campaign",
]
StatusCase = Literal["lower", "title", "upper"]
SuccessCode = Literal[200, 0]


class SandboxFamily(Struct, frozen=True):
    """A family of models. A model belongs to the first family of which a word begins in its name, as in `x/wanx`."""

    name: str
    """The family's name in histories and active tasks."""
    words: tuple[str, ...]
    shape: Shape
    by_task_type: tuple[tuple[str, Shape], ...] = ()
    """Shapes for the task types that contain a word."""
    other_name: str = ""
    """A second name, which the bulk cancel uses."""
    status_case: StatusCase = "lower"
    success_word: str = "completed"
    code: SuccessCode = 200

    def is_named(self, name: str) -> bool:
        """Whether `name` is a name of the family."""
        return name != "" and name.lower() in (self.name, self.other_name)


_LYRICS: tuple[tuple[str, Shape], ...] = (("lyrics", "lyrics"),)
_OTHER = SandboxFamily("other", (), "flux")

FAMILIES = (
    SandboxFamily("sandbox", ("sandbox/brands",), "brand"),
    SandboxFamily("sandbox", ("sandbox/campaigns",), "campaign"),
    SandboxFamily("mj", ("midjourney",), "midjourney", other_name="midjourney"),
    SandboxFamily("flux", ("flux",), "flux"),
    SandboxFamily("kling", ("kling-", "kling_"), "kling"),
    SandboxFamily(
        "kling", ("kling",), "kling_works", (("omni", "kling"), ("try_on", "kling_try_on"), ("try-on", "kling_try_on"))
    ),
    SandboxFamily("luma", ("luma",), "luma"),
    SandboxFamily("hailuo", ("hailuo", "minimax", "t2v-0", "i2v-0", "s2v-0"), "hailuo"),
    SandboxFamily("veo3", ("veo-3", "veo3"), "kling"),
    SandboxFamily("sora2", ("sora",), "kling", success_word="success"),
    SandboxFamily("seedance", ("seedance",), "kling"),
    SandboxFamily("wan", ("wan",), "wan", status_case="title", code=0),
    SandboxFamily("skyreels", ("skyreels",), "wan"),
    SandboxFamily("hunyuan", ("hunyuan",), "wan"),
    SandboxFamily("framepack", ("framepack",), "wan"),
    SandboxFamily("hug_video", ("hug-video", "hug_video", "ai-hug", "ai_hug"), "wan"),
    SandboxFamily("omni-human", ("omni-human", "omnihuman"), "wan"),
    SandboxFamily("video_toolkit", ("video-toolkit", "video_toolkit"), "wan"),
    SandboxFamily("image_toolkit", ("image-toolkit", "image_toolkit"), "image"),
    SandboxFamily("gemini", ("gemini", "nano-banana"), "images"),
    SandboxFamily("qwen-image", ("qwen",), "images"),
    SandboxFamily("music-s", ("music-s", "suno"), "suno", _LYRICS, other_name="suno"),
    SandboxFamily("music-u", ("music-u", "udio"), "udio", _LYRICS, other_name="udio"),
    SandboxFamily("trellis", ("trellis",), "trellis"),
    SandboxFamily("ace-step", ("ace-step", "ace_step"), "audio"),
    SandboxFamily("diffrhythm", ("diffrhythm", "diffrythm"), "audio"),
    SandboxFamily("mmaudio", ("mmaudio",), "audio"),
    SandboxFamily("tts", ("tts",), "audio"),
)


@lru_cache(maxsize=1024)
def family_of(model: str) -> SandboxFamily:
    """Return the family of a model; for an unknown one, a family `other` of images."""
    return next((family for family in FAMILIES if _begins_in(family.words, model.lower())), _OTHER)


def shape_of(model: str, task_type: str) -> Shape:
    """Return where the output of such a task has its URLs."""
    family = family_of(model)
    return next((shape for word, shape in family.by_task_type if word in task_type.lower()), family.shape)


def _begins_in(words: tuple[str, ...], name: str) -> bool:
    return any(re.search(rf"(?<![a-z]){re.escape(word)}", name) for word in words)
