"""The files that describe providers: every fault is named with its line, and what ships passes its recorded cases."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from receiver.errors import SettingsError
from receiver.providers.declared.api import DeclaredAPI
from receiver.providers.declared.cases import run, sample_request
from receiver.providers.declared.faults import FaultyFile
from receiver.providers.declared.file_form import ProviderFile
from receiver.providers.declared.files import SHIPPED, names_in
from receiver.providers.declared.reading import read_file
from receiver.providers.registry import APIS, known_apis, unknown_provider
from receiver.settings import load_settings
from tests.fakes.declared import EXAMPLES, cases_of, path_of

ALL = (*names_in(SHIPPED), *names_in(EXAMPLES))
KEY_HEADERS = {"everything": "x-key", "elevenlabs": "xi-api-key"}
GOOD = (EXAMPLES / "everything.toml").read_text()


@pytest.mark.parametrize("name", ALL)
def test_a_file_passes_its_recorded_exchanges(name: str) -> None:
    api, cases = DeclaredAPI(read_file(path_of(name))), cases_of(name)
    faults = {each.name: each.faults for each in (run(api, case) for case in cases.cases) if each.faults}
    assert faults == {}
    assert any(case.sends for case in cases.cases)
    assert any(case.means for case in cases.cases)
    assert all(case.source for case in cases.cases)


def test_the_guide_has_every_key() -> None:
    guide = (SHIPPED.parent / "guides" / "add-a-provider.md").read_text()
    keys: set[str] = set()
    waiting: list[type[BaseModel]] = [ProviderFile]
    while waiting:
        for name, field in waiting.pop().model_fields.items():
            keys.add(field.alias or name)
            waiting += [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_table(kind)]
    told = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`[^`\n]+`", guide))))
    assert keys - told == set()
    assert {f"`{name}`" for name in names_in(SHIPPED)} <= set(re.findall(r"`[a-z0-9]+`", guide))


def _is_table(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@pytest.mark.parametrize("name", ALL)
def test_the_sample_of_a_file_is_sent_without_credentials(name: str) -> None:
    sent = sample_request(DeclaredAPI(read_file(path_of(name))), cases_of(name).sample)
    assert sent["method"] == "POST"
    assert sent["headers"][KEY_HEADERS.get(name, "authorization")].split()[-1] == "..."


def test_a_case_that_differs_is_told() -> None:
    api, case = DeclaredAPI(read_file(path_of("luma"))), cases_of("luma").cases[0]
    wrong = case.model_copy(update={"means": {"status": "completed"}})
    assert run(api, wrong).faults == ('means.status: "pending" must be "completed"',)


def faults_of(folder: Path, old: str, new: str) -> list[tuple[int | None, str]]:
    """Return the faults of the good file with a change in it."""
    assert old in GOOD
    path = folder / "everything.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(FaultyFile) as raised:
        read_file(path)
    return [(fault.line, fault.message) for fault in raised.value.faults]


def line(text: str) -> int:
    """Return the line of the good file that begins with a text."""
    return next(number for number, each in enumerate(GOOD.splitlines(), 1) if each.startswith(text))


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ('cancels = "any"', 'cancel = "any"', "cancels", "unknown key capabilities.cancel; did you mean cancels?"),
        ("[account]", "[acount]", "[account]", "unknown key acount; did you mean account?"),
        ('path = "/me"', "", "[account]", "account.path is missing"),
        ('title = "Everything"', "", "# A provider", "title is missing"),
        ('output = "files"', 'output = "files["', "output", "task.output: not a JMESPath expression"),
        (
            'output = "files"',
            'output = "from_jsn(files)"',
            "output",
            "no function is named from_jsn; did you mean from_json",
        ),
        ('output = "files"', "output = 7", "output", "task.output: must be a JMESPath expression, as a text"),
        ('path = "/jobs/{id}"', 'path = "/jobs/{ids}"', 'path = "/jobs/{id}"', "nothing is named {ids} here; use {id}"),
        ('path = "/jobs/{id}"', 'path = "jobs"', 'path = "/jobs/{id}"', "look.path: must begin with /"),
        ('by = "header"', 'by = "basic"', "by", "auth.by: Input should be 'bearer', 'header' or 'jwt'"),
        ('value = "Key {api_key}"', 'value = "Key {key}"', "value", "nothing is named {key} here; use {api_key}"),
        ('by = "header"', 'by = "jwt"', "[auth]", "by jwt: key must name the credential that signs"),
        ('callback = "task"', 'callback = "none"', "callback = { in", 'submit.callback: needs callback = "task"'),
        ('callback = "task"', 'callback = "account"', "callback = { in", 'submit.callback: needs callback = "task"'),
        ('callback = { in = "query", name = "hook" }', "", "[submit]", "submit: callback is missing"),
        ('in = "query"', 'in = "path"', "callback = { in", "submit.callback.in: Input should be 'body', 'query'"),
        ('cancels = "any"', 'cancels = "none"', "cancels", "capabilities.cancels: needs a table [cancel]"),
        ('webhook_url = "hook"', "", "[list]", "list: needs task.input or task.webhook_url"),
        ('completed = ["DONE"]', "completed = []", "completed", "words.completed: Tuple should have at least 1 item"),
        ('failed = ["BROKEN"]', 'failed = ["done"]', "[words]", "a word can mean one state only: DONE, done"),
        ('by = "ed25519"', 'by = "hmac"', "[webhook.proof]", "webhook.proof: secret is missing"),
        ('jwks = "https://keys.everything.example/keys.json"', "", "[webhook.proof]", "webhook.proof: jwks is missing"),
        ('header = "X-Signature"', "", "[webhook.proof]", "webhook.proof: header is missing"),
        ('timestamp_header = "X-Time"', "", "[webhook.proof]", "timestamp_header or timestamp_field is missing"),
        ("{timestamp}.{body_sha256}", "{timestamp}", "signed", "must have {timestamp}, and {body} or {body_sha256}"),
        ('name = "everything"', 'name = "other"', "name", "'other' must be as the file is named: everything.toml"),
        ('name = "everything"', 'name = "Every-thing"', "name", "must be 2 to 32 lower-case letters and digits"),
        ('base_url = "https', 'base_url = "ftp', "base_url", "must be an http or https URL"),
        ('cancels = "any"', 'cancels = "any', "cancels", "not valid TOML"),
        ('{ X-Everything = "1" }', '{ X-Everything = "a\\nb" }', "headers", "headers.X-Everything: no header may have"),
        (
            'value = "Key {api_key}"',
            'value = "Schl\u00fcssel {api_key}"',
            "value",
            "auth.value: no header may have such",
        ),
        ('task = "job"', 'headers = { X = "\\r" }', "task", "submit.headers.X: no header may have such"),
        ('path = "/jobs/{id}"', 'path = "/jobs/{id"', 'path = "/jobs/{id', "look.path: has a brace that belongs to no"),
        (
            'path = "/me"',
            'path = "https://e.io/me"',
            'path = "/me"',
            "account.path: must begin with /, or be an https",
        ),
        ('path = "/me"', 'path = "https://[/me"', 'path = "/me"', "account.path: must begin with /, or be an https"),
        ('base_url = "https://api', 'base_url = "https://[api', "base_url", "must be an http or https URL"),
        (
            'base_url = "https://api.everything.example/',
            'base_url = "https://e:99999/',
            "base_url",
            "must be an http or",
        ),
        ('cancels = "any"', 'output_seconds = inf\ncancels = "any"', "cancels", "less than or equal to"),
        (
            'cancels = "any"',
            'least_poll_seconds = nan\ncancels = "any"',
            "cancels",
            "least_poll_seconds: Input should be",
        ),
        ('cancels = "any"', 'record_seconds = 1e18\ncancels = "any"', "cancels", "less than or equal to"),
        (
            'pending = ["WAITS"]',
            'pending = ["WAITS "]',
            "pending",
            "words.pending: a word must have no blanks around it",
        ),
        ('pending = ["WAITS"]', 'pending = [""]', "pending", "words.pending: a word must have no blanks around it"),
        ('path = "/me"', 'path = "/me?full=1"', 'path = "/me"', "account.path: is a path alone: what would follow"),
        ("[auth]", 'credentials = ["base_url"]\n\n[auth]', "[auth]", "must be lower-case letters, digits and _"),
        ("[auth]", 'credentials = ["key_file"]\n\n[auth]', "[auth]", "must be lower-case letters, digits and _"),
        ('"keys.everything.example"', '"https://keys.x"', "hosts", "hosts: must be a host in lower case"),
        ('"https://keys.', '"https://other.', "jwks", "webhook.proof.jwks: must begin with /, or be an https URL on"),
        ('in = "query", name = "hook"', 'in = "body", name = "a..b"', "callback = { in", "callback: name must be a fi"),
        ('in = "query", name = "hook"', 'in = "header", name = "a b"', "callback = { in", "callback: name must be the"),
        (
            'task = "job"',
            'model = { form = "[a-z]+", such_as = "A" }',
            "task",
            "submit.model: such_as must have the form",
        ),
        (
            'output = "files"',
            'output = "' + "a|" * 60 + 'a"',
            "output",
            "task.output: an expression may have at most 60",
        ),
        ('output = "files"', 'output = "' + "[" * 900 + "a" + "]" * 900 + '"', "output", "may have at most 60 levels"),
        ('output = "files"', 'output = "' + "a" * 2001 + '"', "output", "may have at most 2000 characters"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, old: str, new: str, at: str, words: str) -> None:
    found = faults_of(tmp_path, old, new)
    assert [message for _, message in found if words in message], found
    assert [number for number, message in found if words in message] == [line(at)]


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "everything.toml"
    path.write_text(GOOD.replace('output = "files"', 'outputs = "f["').replace('path = "/me"', 'path = "me"'))
    with pytest.raises(FaultyFile, match=r"unknown key task.outputs; did you mean output") as raised:
        read_file(path)
    assert str(raised.value).startswith(f"{path}:{line('output')}: ")
    path.write_text(GOOD.replace('error = "reason"', 'error = "r["').replace('output = "files"', 'output = "f["'))
    with pytest.raises(FaultyFile) as raised:
        read_file(path)
    assert [fault.line for fault in raised.value.faults] == [line("output"), line("error")]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b'title = "caf\xe9"')
    with pytest.raises(FaultyFile, match="not a text in UTF-8"):
        read_file(path)
    with pytest.raises(FaultyFile, match="No such file"):
        read_file(tmp_path / "missing.toml")
    path.write_text("#" * 300_000)
    with pytest.raises(FaultyFile, match="more than 256 KB"):
        read_file(path)


def test_a_file_that_is_nested_too_deeply_is_told(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 20_000)
    with pytest.raises(FaultyFile, match="nested too deeply"):
        read_file(path)


def test_a_folder_adds_providers_and_replaces_those_that_ship(tmp_path: Path) -> None:
    (tmp_path / "everything.toml").write_text(GOOD)
    luma = path_of("luma").read_text().replace("https://agents.lumalabs.ai/v1", "https://luma.example")
    (tmp_path / "luma.toml").write_text(luma)
    apis = known_apis(tmp_path)
    assert apis["everything"].base_url == "https://api.everything.example/v9"
    assert apis["luma"].base_url == "https://luma.example"
    assert apis["kling"].credential_names == ("access_key", "secret_key")
    assert {*APIS, *names_in(SHIPPED), "everything"} == set(apis)


def test_faults_of_all_files_of_the_folder_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "everything.toml").write_text(GOOD.replace("[account]", "[acount]"))
    (tmp_path / "fal.toml").write_text(GOOD.replace('"everything"', '"fal"'))
    (tmp_path / "other.toml").write_text(GOOD)
    with pytest.raises(SettingsError) as raised:
        known_apis(tmp_path)
    told = str(raised.value)
    assert "fal.toml: fal is a provider already" in told
    assert f"everything.toml:{line('[account]')}: unknown key acount" in told
    assert "other.toml:2: name: 'everything' must be as the file is named" in told
    with pytest.raises(SettingsError, match=r"RINGBACK_PROVIDERS_DIR: .*: no such folder"):
        known_apis(tmp_path / "missing")


def test_only_files_that_are_used_are_read_at_the_start() -> None:
    apis = known_apis(None, used=["kling"])
    assert apis._known.keys() == {*APIS, "kling"}  # type: ignore[attr-defined]


def test_the_settings_of_every_provider_are_known() -> None:
    names = {name: api.credential_names[0] for name, api in known_apis(EXAMPLES).items()}
    environment = {f"RINGBACK_PROVIDER_{name.upper()}_{field.upper()}": "value" for name, field in names.items()}
    accounts = load_settings(environment, env_file=None).provider_accounts
    assert {name: list(fields) for name, fields in accounts.items()} == {name: [field] for name, field in names.items()}


def test_an_unknown_provider_is_named_with_the_nearest_declared_one() -> None:
    assert unknown_provider("klingg") == "no provider is named 'klingg'; use kling"
