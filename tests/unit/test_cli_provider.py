"""`ringback provider check` of files."""

import json
from pathlib import Path

from typer.testing import CliRunner

from tests.fakes.command_line import app
from tests.fakes.declared import EXAMPLES, path_of


def checked(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["provider", "check", *arguments])
    return result.exit_code, result.stdout


def test_a_good_file_says_what_it_sends_and_reads() -> None:
    status, out = checked(str(path_of("kling")))
    assert status == 0
    assert "ok   kling sends POST https://api-singapore.klingai.com/v1/videos/text2video" in out
    assert "authorization: Bearer ...\n" in out
    assert '"callback_url":"https://ringback.example.com/hooks/kling/{task}/{token}"' in out
    assert (
        'too many parallel tasks: POST https://api-singapore.klingai.com/v1/videos/text2video -> {"outcome":"NotMade"'
        in out
    )


def test_a_form_is_explained_part_by_part_without_its_files() -> None:
    status, out = checked(str(path_of("stability")))
    assert status == 0
    lines = [line.strip() for line in out.splitlines()]
    begin = lines.index("content-type: multipart/form-data")
    assert lines[begin + 1 : begin + 3] == [
        "part image: a file image.png, image/png, 70 bytes",
        "part prompt: A lighthouse on a cliff",
    ]
    assert "iVBOR" not in out
    told = json.loads(checked(str(path_of("elevenlabs")), "--json")[1])["data"][0]
    assert told["sends"]["body"][:2] == [
        {"name": "file", "file_name": "file.wav", "content_type": "audio/wav", "bytes": 44},
        {"name": "target_lang", "text": "es"},
    ]


def test_a_file_and_a_provider_are_not_checked_together() -> None:
    for arguments in ((str(path_of("kling")), "fal"), (str(path_of("kling")), "--account", "a"), ("fal", "openai")):
        assert checked(*arguments)[0] == 2


def test_faults_are_named_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "everything.toml"
    path.write_text((EXAMPLES / "everything.toml").read_text().replace("[account]", "[acount]"))
    status, out = checked(str(path))
    assert status == 1
    assert f"bad  {path}:39: unknown key acount; did you mean account?" in out


def test_a_case_that_differs_is_a_fault_in_json_too(tmp_path: Path) -> None:
    path = tmp_path / "everything.toml"
    path.write_text((EXAMPLES / "everything.toml").read_text())
    status, out = checked(str(path))
    assert (status, out.startswith("look")) == (0, True)
    cases = json.loads((EXAMPLES / "everything.cases.json").read_text())
    cases["cases"][0]["means"]["id"] = "8"
    (tmp_path / "everything.cases.json").write_text(json.dumps(cases))
    status, out = checked(str(path), "--json")
    assert status == 1
    (told,) = json.loads(out)["data"]
    assert (told["faults"], told["sends"]["headers"]["x-key"]) == ([], "Key ...")
    assert [case["faults"] for case in told["cases"]] == [['means.id: "7" must be "8"'], []]
    (tmp_path / "everything.cases.json").write_text('{"source": "x", "case": []}')
    status, out = checked(str(path))
    assert status == 1
    assert "everything.cases.json: case: Extra inputs are not permitted" in out
