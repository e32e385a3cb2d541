"""Families of models: which a model belongs to, and what a client means by a name."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.model_families import (
    ALWAYS_ACTIVE_KEYS,
    FAMILIES,
    active_key,
    family_named,
    family_of,
    history_name,
    models_wanted,
)

CONTRACT = Path(__file__).parents[2] / "receiver" / "providers" / "piapi" / "CONTRACT.md"
FAMILY_OF = {
    "Qubico/flux1-schnell": "flux",
    "Qubico/flux1-dev-advanced": "flux",
    "flux-kontext": "flux",
    "midjourney": "mj",
    "kling": "kling",
    "kling-turbo": "kling",
    "luma": "luma",
    "music-s": "music-s",
    "suno": "music-s",
    "suno-v4": "music-s",
    "music-u": "music-u",
    "udio": "music-u",
    "hailuo": "hailuo",
    "t2v-01-director": "hailuo",
    "s2v-01": "hailuo",
    "Wan": "wan",
    "Qubico/wanx": "wan",
    "wan2.6": "wan",
    "Qubico/hunyuan": "hunyuan",
    "Qubico/skyreels": "skyreels",
    "Qubico/hug-video": "hug_video",
    "Qubico/image-toolkit": "image_toolkit",
    "Qubico/video-toolkit": "video_toolkit",
    "Qubico/mmaudio": "mmaudio",
    "Qubico/diffrhythm": "diffrhythm",
    "Qubico/tts": "tts",
    "trellis2": "trellis",
    "Qubico/ace-step": "ace-step",
    "veo3.1-fast": "veo",
    "sora2-pro": "sora",
    "seedance-2-preview": "seedance",
    "gemini-2.5-flash-image": "gemini",
}


@pytest.mark.parametrize(("model", "family"), FAMILY_OF.items())
def test_a_model_belongs_to_its_family_in_any_case(model: str, family: str) -> None:
    for name in (model, model.upper(), f" {model} "):
        found = family_of(name)
        assert found is not None
        assert found.name == family


@pytest.mark.parametrize("model", ["fluxion", "klingon", "wander", "my-flux", "", "/", "sandbox/brands", "mjolnir"])
def test_a_model_that_only_resembles_one_has_no_family(model: str) -> None:
    assert family_of(model) is None
    assert history_name(model) is None
    assert active_key(model) == model


@pytest.mark.parametrize("name", ["mj", "midjourney", "MidJourney", "MJ "])
def test_a_family_has_several_names(name: str) -> None:
    found = family_named(name)
    assert found is not None
    assert (found.name, found.key) == ("mj", "midjourney")


def test_a_name_belongs_to_one_family() -> None:
    names = [name for family in FAMILIES for name in family.names]
    assert len(names) == len(set(names))
    beginnings = [beginning for family in FAMILIES for beginning in family.models]
    assert len(beginnings) == len(set(beginnings))


def test_a_family_s_name_as_a_model_is_of_that_family() -> None:
    assert [family.name for family in FAMILIES if family_of(family.name) is not family] == []


def test_the_history_is_filtered_by_the_names_that_the_contract_lists_only() -> None:
    (listed,) = re.findall(r"^Histories filter by: (.+)$", CONTRACT.read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"`([^`]+)`", listed))
    assert {family.name for family in FAMILIES if family.in_history} <= named
    assert {history_name(model) for model in FAMILY_OF} - {None} <= named
    assert named <= {name for family in FAMILIES for name in family.names}


def test_active_families_without_tasks_are_families() -> None:
    assert set(ALWAYS_ACTIVE_KEYS) <= {family.key for family in FAMILIES}


@given(
    st.lists(st.sampled_from([*FAMILY_OF, "of-mine"])), st.sampled_from([*FAMILY_OF.values(), "of-mine", "x", "all"])
)
def test_what_is_wanted_is_a_part_of_the_models_there_are(models: list[str], wanted: str) -> None:
    found = models_wanted(wanted.upper(), models)
    if wanted == "all":
        assert found is None
    else:
        assert found == [each for each in models if FAMILY_OF.get(each, each) == wanted]


@given(st.text())
def test_any_text_is_a_model_s_name(text: str) -> None:
    assert models_wanted(text, [text]) in (None, [text], [])
    assert active_key(text) or not text
