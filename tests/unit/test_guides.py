"""The guides as pages: what Markdown becomes, that the package has them, and that no error code is left out."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from receiver.api.description.errors import CODES
from receiver.dashboard.guides import GUIDES
from receiver.dashboard.prose import GuidePlace, render_markdown
from receiver.domain.error_numbers import OWN_NUMBERS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "guides"


def place_of(name: str) -> GuidePlace | None:
    return ("/docs/keys", "Keys") if name == "keys" else None


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("[the keys](keys.md#api-keys)", '<a href="/docs/keys#api-keys">the keys</a>'),
        ("([keys.md](keys.md))", '(<a href="/docs/keys">Keys</a>)'),
        ("see `deploy/guides/keys.md`", 'see <a href="/docs/keys">Keys</a>'),
        ("[a file](../proxies/nginx.conf), [none](none.md)", "a file, none"),
        ("[out](https://example.com/a.md)", '<a href="https://example.com/a.md">out</a>'),
        ("[x](javascript:alert(1)) [y](//example.com)", "[x](javascript:alert(1)) y"),
        ("<b onclick=x>a</b>", "&lt;b onclick=x&gt;a&lt;/b&gt;"),
        ("`<script>`", "<code>&lt;script&gt;</code>"),
        ("![a](https://example.com/a.png)", '!<a href="https://example.com/a.png">a</a>'),
    ],
)
def test_a_link_leads_somewhere_or_is_its_text(text: str, html: str) -> None:
    assert render_markdown(text, place_of).markup == f"<p>{html}</p>\n"


def test_code_is_escaped_can_be_copied_and_has_a_name_of_its_own() -> None:
    text = '```json\n{"a": "<b>"}\n```\n\n```sh\necho <c>\n```\n'
    markup = render_markdown(text).markup
    assert re.findall(r'aria-label="([^"]+)"', markup) == ["json, block 1", "sh, block 2"]
    assert re.findall(r'data-copy="([^"]+)"', markup) == re.findall(r'<code id="([^"]+)"', markup)
    assert '<span class="json-name">&#34;a&#34;</span>' in markup
    assert ("&lt;b&gt;" in markup, "echo &lt;c&gt;" in markup, "<b>" in markup) == (True, True, False)


def test_each_heading_has_an_anchor_of_its_words() -> None:
    rendered = render_markdown("# A title\n\n## It's `here`\n\n## It's here\n")
    assert [each.anchor for each in rendered.headings] == ["a-title", "its-here", "its-here-1"]
    assert '<h2 id="its-here-1">' in rendered.markup


def test_troubleshooting_says_what_to_do_at_every_code() -> None:
    part = (FOLDER / "troubleshooting.md").read_text().partition("## By the code of an error")[2]
    requests, of_tasks = part.split("Of a task that failed")

    def codes(rows: str) -> set[str]:
        cells = re.findall(r"^\| (`.+?`) \|", rows, re.MULTILINE)
        return {code for cell in cells for code in re.findall(r"`(\w+)`", cell)}

    assert codes(requests) == set(CODES)
    assert codes(of_tasks) | codes(requests) >= set(OWN_NUMBERS)
    assert codes(of_tasks) <= set(OWN_NUMBERS)


def test_the_package_that_the_image_is_made_of_has_every_guide(tmp_path: Path) -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            to = tmp_path / target / Path(source).name if target.endswith("/") else tmp_path / target
            to.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, to)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('wheel'))"
    (tmp_path / "wheel").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"deploy/guides/{name}.md" for name in GUIDES} <= packed
    declared = {f"deploy/providers/{path.name}" for path in (ROOT / "deploy/providers").iterdir()}
    assert len(declared) >= 20
    assert declared <= packed
    static = {f"receiver/dashboard/static/{each.name}" for each in (ROOT / "receiver/dashboard/static").iterdir()}
    assert static <= packed
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"!deploy/guides/*.md", "!deploy/providers/*.toml", "!deploy/providers/*.json"} <= set(kept)
