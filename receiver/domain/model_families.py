"""The families that PiAPI sorts models into: its lists and its cancelling of many tasks name families, not models.

A task names a model (`Qubico/flux1-schnell`), the history filters by a family (`flux`), and a family can have several
names (`mj`, `midjourney`). Source: `receiver/providers/piapi/CONTRACT.md`, "Families of models". Pure functions.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

ALL_MODELS = "all"
"""The name that stands for every family."""


class Family(Struct, frozen=True):
    """One family. `name` is the one by which PiAPI's history filters, if `in_history`; else it is ours.

    `active_name` is its key among the active tasks. `models` are beginnings of its models' names, in lower case and
    without a vendor's `Qubico/`; what follows in a model's name does not begin with a letter (`flux1-dev`, `veo3.1`).
    """

    name: str
    models: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    active_name: str = ""
    in_history: bool = True

    @property
    def key(self) -> str:
        """The family's key among the active tasks."""
        return self.active_name or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which a client may ask for the family."""
        return tuple(dict.fromkeys((self.name, self.key, *self.aliases)))


FAMILIES = (
    Family("flux", ("flux",)),
    Family("mj", ("midjourney", "mj"), active_name="midjourney"),
    Family("kling", ("kling",)),
    Family("luma", ("luma", "dream-machine"), ("dream-machine",)),
    Family("music-s", ("music-s", "suno", "chirp"), ("suno",)),
    Family("music-u", ("music-u", "udio"), ("udio",)),
    Family("hailuo", ("hailuo", "minimax", "t2v-01", "i2v-01", "s2v-01"), ("minimax",)),
    Family("wan", ("wan", "wanx"), ("wanx",)),
    Family("hunyuan", ("hunyuan",)),
    Family("skyreels", ("skyreels",)),
    Family("hug_video", ("hug-video", "hug_video", "ai-hug", "ai_hug"), ("hug-video", "ai_hug", "ai-hug")),
    Family("image_toolkit", ("image-toolkit", "image_toolkit"), ("image-toolkit",)),
    Family("video_toolkit", ("video-toolkit", "video_toolkit"), ("video-toolkit",)),
    Family("mmaudio", ("mmaudio",)),
    Family("diffrhythm", ("diffrhythm", "diffrythm"), ("diffrythm",)),
    Family("tts", ("tts", "f5-tts")),
    Family("trellis", ("trellis",)),
    Family("sd", ("sd", "sdxl", "stable-diffusion")),
    Family("gpts", ("gpts",)),
    Family("llm", ("llm", "gpt", "chatgpt", "claude", "deepseek")),
    Family("ace-step", ("ace-step", "ace_step"), ("ace_step",), in_history=False),
    Family("framepack", ("framepack",), in_history=False),
    Family("gemini", ("gemini", "nano-banana"), ("nano-banana",), in_history=False),
    Family("joycaption", ("joycaption",), in_history=False),
    Family("omni-human", ("omni-human", "omnihuman"), ("omnihuman",), in_history=False),
    Family("qwen-image", ("qwen-image",), in_history=False),
    Family("seedance", ("seedance",), in_history=False),
    Family("seedream", ("seedream",), in_history=False),
    Family("sora", ("sora",), ("sora2",), in_history=False),
    Family("veo", ("veo",), ("veo3",), in_history=False),
    Family("z-image", ("z-image",), in_history=False),
)
"""The families. Those that are not `in_history` are models of later years, which PiAPI's page does not name."""

ALWAYS_ACTIVE_KEYS = ("flux", "kling", "luma", "midjourney", "music-s", "music-u")
"""The families that PiAPI's answer about active tasks has even while they have none."""

_BY_NAME = {name: family for family in FAMILIES for name in family.names}
_MODELS = [(re.compile(rf"{re.escape(model)}(?![a-z])"), family) for family in FAMILIES for model in family.models]


@lru_cache(maxsize=4096)
def family_of(model: str) -> Family | None:
    """Return the family of a model, None for a model of no known family."""
    name = model.strip().lower().rpartition("/")[2]
    return next((family for pattern, family in _MODELS if pattern.match(name)), None)


def family_named(name: str) -> Family | None:
    """Return the family with this name, whatever its case; None if there is none."""
    return _BY_NAME.get(name.strip().lower())


def active_key(model: str) -> str:
    """Return the key of a model among the active tasks: its family's, or the model itself if it has no family."""
    family = family_of(model)
    return model if family is None else family.key


def history_name(model: str) -> str | None:
    """Return the name by which the provider's history filters for a model's family; None if it names none."""
    family = family_of(model)
    return family.name if family is not None and family.in_history else None


def models_wanted(wanted: str, models: Iterable[str]) -> list[str] | None:
    """Return those of `models` that a client means by `wanted`; None for all of them.

    `wanted` is a family, a model's name (both in any case), `all` or empty. No model is in the list if the name is
    unknown.
    """
    name = wanted.strip().lower()
    if name in ("", ALL_MODELS):
        return None
    family = family_named(name)
    if family is not None:
        return [model for model in models if family_of(model) is family]
    return [model for model in models if model.strip().lower() == name]


def family_names() -> list[str]:
    """Return the names by which families can be asked for, for a message."""
    return sorted(_BY_NAME)
