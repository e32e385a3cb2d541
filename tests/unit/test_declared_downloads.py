"""Outputs that are files of the provider's: a look whose answer is the file, and addresses that need the key."""

from pathlib import Path
from typing import Any

import pytest

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers.api import CannotAsk, Request
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse, is_file_type
from receiver.providers.declared.api import DeclaredAPI
from receiver.providers.declared.faults import FaultyFile
from receiver.providers.declared.files import SHIPPED
from receiver.providers.declared.reading import read_file

STABILITY = (SHIPPED / "stability.toml").read_text()
ELEVENLABS = (SHIPPED / "elevenlabs.toml").read_text()
TASK = ProviderTask("7", None, "stable-image/upscale/creative")


def api_of(folder: Path, text: str, *changes: tuple[str, str]) -> DeclaredAPI:
    """Return the API of a file with changes in it."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / f"{text.split('name = ')[1].split(chr(34))[1]}.toml"
    path.write_text(text)
    return DeclaredAPI(read_file(path))


def seen(status: int = 200, body: Any = None, *, size: int = 0, is_file: bool = False, **headers: str) -> CallResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return CallResponse(status, body, "", None, size, is_file=is_file, headers=named)


def looked(api: DeclaredAPI, answer: CallResponse) -> ProviderUpdate:
    update = api.read_look(answer, TASK)
    assert isinstance(update, ProviderUpdate)
    return update


def test_a_look_says_which_answers_are_files_and_no_other_call_does(tmp_path: Path) -> None:
    api = api_of(tmp_path, STABILITY)
    assert api.look(TASK).file_types == ("image/*", "audio/*")
    assert api.look(TASK).headers == {"accept": "*/*"}
    assert api.account().file_types == ()


@pytest.mark.parametrize(
    ("status", "content_type", "expected"),
    [
        (200, "image/png", True),
        (206, "IMAGE/WEBP; charset=x", True),
        (200, "video/mp4", True),
        (200, "video/webm", False),
        (200, "imagery/png", False),
        (200, "application/json", False),
        (200, "", False),
        (404, "image/png", False),
    ],
)
def test_a_file_is_a_success_of_a_type_that_is_named(status: int, content_type: str, expected: bool) -> None:
    assert is_file_type(status, content_type, ("image/*", "video/mp4")) is expected
    assert is_file_type(status, content_type, ()) is False


def test_the_output_is_the_address_and_needs_the_key(tmp_path: Path) -> None:
    api = api_of(tmp_path, STABILITY)
    done = looked(api, seen(is_file=True, content_type="image/png", finish_reason="SUCCESS", seed="7"))
    assert done.status == TaskStatus.COMPLETED
    assert done.output is not None
    assert done.output["image_url"] == "https://api.stability.ai/v2beta/results/7"
    assert (done.output["seed"], api.capabilities.outputs_need_key) == ("7", True)


def test_a_file_that_was_filtered_is_a_failure(tmp_path: Path) -> None:
    update = looked(api_of(tmp_path, STABILITY), seen(is_file=True, finish_reason="CONTENT_FILTERED"))
    assert (update.status, update.output) == (TaskStatus.FAILED, None)


@pytest.mark.parametrize(("answer", "word"), [(seen(200), "200"), (seen(200, {"a": 1}, size=7), "200")])
def test_a_success_that_is_no_file_is_no_end(tmp_path: Path, answer: CallResponse, word: str) -> None:
    update = looked(api_of(tmp_path, STABILITY), answer)
    assert (update.status, update.word) == (None, word)


def test_the_page_of_a_proxy_is_no_answer(tmp_path: Path) -> None:
    for status in (200, 202):
        with pytest.raises(MalformedUpdate, match="neither JSON nor a file"):
            api_of(tmp_path, STABILITY).read_look(seen(status, size=90, content_type="text/html"), TASK)


def test_each_language_of_a_dub_is_an_address(tmp_path: Path) -> None:
    api = api_of(tmp_path, ELEVENLABS)
    body = {"dubbing_id": "7", "status": "dubbed", "target_languages": ["es", "pt-br", 5, "", "x" * 201, None]}
    files = (looked(api, seen(200, body)).output or {})["files"]
    assert [each["language"] for each in files] == ["es", "pt-br", "5"]
    assert files[1]["url"] == "https://api.elevenlabs.io/v1/dubbing/7/audio/pt-br"


@pytest.mark.parametrize("languages", [None, [], {}, "", [{}], ["a", ".."]])
def test_a_dub_whose_files_nothing_names_is_malformed(tmp_path: Path, languages: Any) -> None:
    body = {"dubbing_id": "7", "status": "dubbed", "target_languages": languages}
    with pytest.raises(MalformedUpdate):
        api_of(tmp_path, ELEVENLABS).read_look(seen(200, body), TASK)


def test_a_task_has_a_bounded_number_of_files(tmp_path: Path) -> None:
    body = {"dubbing_id": "7", "status": "dubbed", "target_languages": [f"l{n}" for n in range(5000)]}
    assert len((looked(api_of(tmp_path, ELEVENLABS), seen(200, body)).output or {})["files"]) == 100


def test_a_form_has_the_callback_as_a_part_of_it(tmp_path: Path) -> None:
    place = 'callback = { in = "body", name = "hook" }'
    changes = [
        ('sends = "multipart"', f'sends = "multipart"\n{place}'),
        ("[capabilities]", '[capabilities]\ncallback = "task"'),
    ]
    api = api_of(tmp_path, ELEVENLABS + "\n[webhook]\n", *changes)
    request = api.create(NewTask(model="dubbing", task_type="", input={"n": 1}, webhook_url="https://r.example/h"))
    assert isinstance(request, Request)
    assert request.body is None
    assert [(part.name, part.content) for part in request.parts or ()] == [
        ("n", b"1"),
        ("hook", b"https://r.example/h"),
    ]


def test_a_form_is_made_of_an_object_alone(tmp_path: Path) -> None:
    api = api_of(tmp_path, ELEVENLABS, ('sends = "multipart"', 'sends = "multipart"\nbody = "input.list"'))
    for given in ({"list": [1]}, {"list": "a"}, {}):
        with pytest.raises(CannotAsk):
            api.create(NewTask(model="dubbing", task_type="", input=given))


@pytest.mark.parametrize(
    ("text", "old", "new", "at", "words"),
    [
        (
            STABILITY,
            'sends = "multipart"',
            'sends = "form"',
            "sends",
            "submit.sends: Input should be 'json' or '",
        ),
        (STABILITY, '"image/*"', '"image"', "file_types", "look.file_types: must be a media type in lower case"),
        (STABILITY, '"image/*"', '"Image/PNG"', "file_types", "look.file_types: must be a media type in lower case"),
        (STABILITY, "file_types", "file_type", "file_type", "unknown key look.file_type; did you mean file_types?"),
        (ELEVENLABS, "{language}", "{lang}", 'path = "/v1/dubbing/{id}/a', "download.path: nothing is named {lang}"),
        (ELEVENLABS, '"/v1/dubbing/{id}/a', '"https://e.io/a', 'path = "https', "download.path: must begin with /"),
        (ELEVENLABS, '"target_languages"', '"target["', "values", "download.values.language: not a JMESPath express"),
        (ELEVENLABS, "[download]", "[downloads]", "[downloads]", "unknown key downloads; did you mean download?"),
        (ELEVENLABS, "[account]", '[result]\npath = "/x"\n[account]', "[download]", "download: either it or [result]"),
    ],
)
def test_a_fault_of_a_form_or_a_download_is_named_with_its_line(
    tmp_path: Path, text: str, old: str, new: str, at: str, words: str
) -> None:
    assert old in text
    changed = text.replace(old, new, 1)
    with pytest.raises(FaultyFile) as raised:
        api_of(tmp_path, changed)
    found = [(fault.line, fault.message) for fault in raised.value.faults if words in fault.message]
    assert found, [fault.message for fault in raised.value.faults]
    assert [number for number, _ in found] == [
        next(number for number, line in enumerate(changed.splitlines(), 1) if line.startswith(at))
    ]


def test_file_types_need_the_address_of_the_file(tmp_path: Path) -> None:
    begin, end = STABILITY.index("[download]"), STABILITY.index("[account]")
    with pytest.raises(FaultyFile, match=r"look.file_types: needs a table \[download\]"):
        api_of(tmp_path, STABILITY[:begin] + STABILITY[end:])
