"""Forms: what of an input becomes a text and what a file, and that nothing in it leaves its part."""

import base64
from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.providers.api import CannotAsk, FormPart
from receiver.providers.multipart import parts_of, written

BOUNDARY = "0123456789abcdef"
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n--" + BOUNDARY[:8].encode()).decode()


def read(parts: tuple[FormPart, ...]) -> list[tuple[str, str | None, str | None, bytes]]:
    """Return what the mail library, which is none of ours, reads of a form: names, files, types and contents."""
    head = f"content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
    message = message_from_bytes(head + written(parts, BOUNDARY))
    assert not message.defects
    found = []
    for part in message.get_payload():
        about: Any = part
        name, content = about.get_param("name", header="content-disposition"), about.get_payload(decode=True)
        found.append((name, about.get_filename(), about["content-type"], content))
    return found


def test_a_text_is_a_text_and_a_data_url_a_file() -> None:
    parts = parts_of({"prompt": "ein Kätzchen", "image": PNG, "audio_file": "data:audio/x-wav;base64,UklG\nRg"})
    assert read(parts) == [
        ("prompt", None, None, "ein Kätzchen".encode()),
        ("image", "image.png", "image/png", b"\x89PNG\r\n--01234567"),
        ("audio_file", "audio_file.wav", "audio/x-wav", b"RIFF"),
    ]


def test_other_values_are_their_json_and_a_list_is_a_part_for_each_item() -> None:
    parts = parts_of(
        {"n": 1.8, "on": True, "meta": {"a": [1]}, "none": None, "words": ["a", "b", None, 3], "empty": []}
    )
    assert [(part.name, part.content) for part in parts] == [
        ("n", b"1.8"),
        ("on", b"true"),
        ("meta", b'{"a":[1]}'),
        ("words", b"a"),
        ("words", b"b"),
        ("words", b"3"),
    ]


def test_an_address_is_sent_as_the_text_that_it_is() -> None:
    assert parts_of({"source_url": "https://e.example/a.mp4"}) == (FormPart("source_url", b"https://e.example/a.mp4"),)


@pytest.mark.parametrize("text", ["data: a report", "data:,x", "data:;base64,eA==", "the data:image/png;base64,eA=="])
def test_a_text_about_data_is_no_file(text: str) -> None:
    assert parts_of({"prompt": text}) == (FormPart("prompt", text.encode()),)


def test_a_data_url_without_base64_is_percent_encoded() -> None:
    (part,) = parts_of({"notes": "data:text/plain;charset=utf-8,a%20b"})
    assert part == FormPart("notes", b"a b", "notes.txt", "text/plain")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("image/jpeg", "f.jpg"), ("video/mpeg", "f.mpg"), ("audio/mpeg", "f.mp3"), ("application/x-msdownload", "f.bin")],
)
def test_the_name_of_a_file_ends_as_its_type_says(kind: str, name: str) -> None:
    assert parts_of({"f": f"data:{kind};base64,eA=="})[0].file_name == name


def test_base64_that_cannot_be_read_is_told_with_its_field() -> None:
    with pytest.raises(CannotAsk, match=r"input.image: the base64 of its data: URL cannot be read"):
        parts_of({"image": "data:image/png;base64,%%%"})


def test_a_form_has_a_bounded_number_of_parts() -> None:
    assert len(parts_of({"a": [1] * 1000, "b": [None] * 5000})) == 1000
    with pytest.raises(CannotAsk, match="at most 1000"):
        parts_of({"a": [1] * 1000, "b": "x"})


@given(
    st.dictionaries(
        st.text(max_size=12), st.text(max_size=30) | st.integers(-(2**63), 2**63) | st.just(PNG), max_size=6
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_in_an_input_stays_in_its_part(fields: dict[str, Any]) -> None:
    body = written(parts_of(fields), BOUNDARY)
    heads = [piece.partition(b"\r\n\r\n")[0] for piece in (b"\r\n" + body).split(b"\r\n--" + BOUNDARY.encode())[1:-1]]
    assert len(heads) == len(fields)
    for head in heads:
        lines = head.strip(b"\r\n").split(b"\r\n")
        assert [line.partition(b":")[0] for line in lines] == [b"content-disposition", b"content-type"][: len(lines)]
        assert lines[0].count(b'"') == 2 * len(lines)
