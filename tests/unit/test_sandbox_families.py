"""A model's name says its family, and the family how the provider reports."""

import pytest

from receiver.sandbox.families import FAMILIES, family_of, shape_of
from receiver.sandbox.script import Script, shape_for


@pytest.mark.parametrize(
    ("model", "family", "shape"),
    [
        ("Qubico/flux1-dev", "flux", "flux"),
        ("Qubico/image-toolkit", "image_toolkit", "image"),
        ("Qubico/video-toolkit", "video_toolkit", "wan"),
        ("gemini", "gemini", "images"),
        ("kling", "kling", "kling_works"),
        ("kling-turbo", "kling", "kling"),
        ("veo3", "veo3", "kling"),
        ("veo3.1", "veo3", "kling"),
        ("sora2", "sora2", "kling"),
        ("seedance", "seedance", "kling"),
        ("bytedance/seedance-2", "seedance", "kling"),
        ("hailuo", "hailuo", "hailuo"),
        ("t2v-01-director", "hailuo", "hailuo"),
        ("luma", "luma", "luma"),
        ("Wan", "wan", "wan"),
        ("Qubico/wanx", "wan", "wan"),
        ("Qubico/skyreels", "skyreels", "wan"),
        ("Qubico/hunyuan", "hunyuan", "wan"),
        ("Qubico/framepack", "framepack", "wan"),
        ("Qubico/hug-video", "hug_video", "wan"),
        ("Qubico/omni-human", "omni-human", "wan"),
        ("Qubico/diffrythm", "diffrhythm", "audio"),
        ("Qubico/ace-step", "ace-step", "audio"),
        ("Qubico/diffrhythm", "diffrhythm", "audio"),
        ("Qubico/f5-tts", "tts", "audio"),
        ("Qubico/mmaudio", "mmaudio", "audio"),
        ("Qubico/trellis2", "trellis", "trellis"),
        ("music-s", "music-s", "suno"),
        ("suno", "music-s", "suno"),
        ("music-u", "music-u", "udio"),
        ("midjourney", "mj", "midjourney"),
        ("a-model-of-tomorrow", "other", "flux"),
    ],
)
def test_a_model_has_the_family_and_shape_of_its_name(model: str, family: str, shape: str) -> None:
    assert (family_of(model).name, shape_of(model, "")) == (family, shape)
    assert shape_for(Script(), model) == shape
    assert shape_for(Script(shape="old_envelope"), model) == "old_envelope"


@pytest.mark.parametrize(
    ("model", "task_type", "shape"),
    [
        ("music-u", "generate_lyrics", "lyrics"),
        ("music-s", "generate_lyrics", "lyrics"),
        ("kling", "omni_video_generation", "kling"),
        ("kling", "ai_try_on", "kling_try_on"),
        ("kling", "lip_sync", "kling_works"),
    ],
)
def test_some_task_types_have_a_shape_of_their_own(model: str, task_type: str, shape: str) -> None:
    assert shape_of(model, task_type) == shape


def test_a_word_counts_only_where_it_begins() -> None:
    assert family_of("x/mmaudio").name != family_of("x/udio").name
    assert family_of("taiwan").name == "other"


def test_a_family_is_found_by_both_of_its_names() -> None:
    for name in ("mj", "MJ", "midjourney"):
        assert family_of("midjourney").is_named(name)
    assert not family_of("Qubico/flux1-dev").is_named("")


IN_HISTORIES = {
    *(
        "diffrhythm",
        "diffrythm",
        "flux",
        "gpts",
        "hailuo",
        "hug_video",
        "hunyuan",
        "image_toolkit",
        "kling",
        "llm",
        "luma",
    ),
    *("mj", "mmaudio", "music-s", "music-u", "sd", "skyreels", "trellis", "tts", "video_toolkit", "wan"),
}
"""The families by which PiAPI's page about histories lets users filter."""
LATER = {"veo3", "sora2", "seedance", "framepack", "gemini", "qwen-image", "ace-step", "omni-human"}


def test_families_have_the_names_of_piapi_s_histories() -> None:
    assert {family.name for family in FAMILIES} - {"sandbox"} - LATER <= IN_HISTORIES
