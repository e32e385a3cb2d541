"""The API that a file describes: what it sends and how it reads, by strategies that the recorded cases do not have."""

import base64
import hmac
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers.api import CannotAsk, Request, Window
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.declared.api import DeclaredAPI
from receiver.providers.declared.expressions import Expression
from receiver.providers.declared.files import SHIPPED, names_in
from receiver.providers.declared.reading import read_file
from receiver.providers.outcomes import cancel_outcome, fetch_outcome, found_outcome, result_outcome, submit_outcome
from receiver.providers.proofs import verify_standard
from receiver.providers.webhook_outcomes import ChallengeAnswer, LookNow, Signature
from tests.fakes.declared import EXAMPLES, path_of

GOOD = (EXAMPLES / "everything.toml").read_text()
NOW = 1_800_000_000.0
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()


def api_with(folder: Path, *changes: tuple[str, str], more: str = "") -> DeclaredAPI:
    """Return the API of the good file with changes in it, and more at its end."""
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "everything.toml"
    path.write_text(text + more)
    return DeclaredAPI(read_file(path))


def shipped(name: str) -> DeclaredAPI:
    return DeclaredAPI(read_file(path_of(name)))


def new_task(**fields: Any) -> NewTask:
    given = {"model": "maker/one", "task_type": "any", "input": {"a": 1}, "webhook_url": "https://r.example/h"}
    return NewTask(**{**given, **fields})


def answered(body: Any, status: int = 200) -> CallResponse:
    return CallResponse(status, body, "", None)


def test_a_jwt_names_the_access_key_and_is_signed_with_the_secret_one() -> None:
    headers = shipped("kling").auth({"access_key": "ak", "secret_key": "sk"}, NOW)
    head, claims, signature = headers["authorization"].removeprefix("Bearer ").split(".")

    def decoded(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    assert orjson.loads(decoded(head)) == {"alg": "HS256", "typ": "JWT"}
    assert orjson.loads(decoded(claims)) == {"iss": "ak", "exp": int(NOW) + 1800, "nbf": int(NOW) - 5}
    assert decoded(signature) == hmac.digest(b"sk", f"{head}.{claims}".encode(), "sha256")


def test_the_callback_goes_where_the_file_says_and_the_input_stays_as_it_is(tmp_path: Path) -> None:
    place = 'callback = { in = "query", name = "hook" }'
    task = new_task(input={"notify": {"on": "end"}})
    nested = api_with(tmp_path, (place, 'callback = { in = "body", name = "input.notify.url" }')).create(task)
    assert nested.body == {"input": {"notify": {"on": "end", "url": "https://r.example/h"}}}
    assert task.input == {"notify": {"on": "end"}}
    header = api_with(tmp_path, (place, 'callback = { in = "header", name = "X-Hook" }')).create(task)
    assert header.headers == {"x-hook": "https://r.example/h"}
    without = api_with(tmp_path).create(new_task(webhook_url=None))
    assert without.params == {}


@pytest.mark.parametrize("model", ["../admin", "a//b", "a/./b", "", "/a"])
def test_no_model_leads_to_another_path(tmp_path: Path, model: str) -> None:
    with pytest.raises(CannotAsk):
        api_with(tmp_path).create(new_task(model=model))


def test_what_a_value_has_of_a_url_is_quoted(tmp_path: Path) -> None:
    api = api_with(tmp_path)
    assert api.create(new_task(model="a?b=c/d#e")).url == "/models/a%3Fb%3Dc/d%23e/jobs"
    assert api.look(ProviderTask("x/../y")).url == "/jobs/x%2F..%2Fy"


def test_a_task_type_of_another_form_cannot_be_asked() -> None:
    with pytest.raises(CannotAsk, match="task_type must be as in videos/text2video, not 'text2video'"):
        shipped("kling").create(new_task(task_type="text2video"))


def test_a_list_is_read_page_by_page_until_it_is_older_than_the_window(tmp_path: Path) -> None:
    api = api_with(tmp_path)
    window = Window("m", datetime(2026, 1, 2, tzinfo=UTC))
    first = api.page(window)
    assert first.params == {"after": "2026-01-02T00:00:00+00:00"}
    young = {
        "id": "1",
        "state": "RUNS",
        "made": "2026-01-03T00:00:00Z",
        "hook": "https://r.example/hooks/e/uid/secret?attempt=2",
    }
    page = api.read_page(answered({"jobs": [young], "more": 2}), window)
    assert page.following == Request(method="GET", url="/jobs", params={**first.params, "page": "2"})
    assert api.read_page(answered({"jobs": [young], "more": None}), window).following is None
    old = {**young, "made": "2026-01-01T00:00:00Z"}
    assert api.read_page(answered({"jobs": [old], "more": 2}), window).following is None
    listed = api.parse_task(page.tasks[0])
    assert listed.config == {"webhook_config": {"endpoint": "https://r.example/hooks/e/uid?attempt=2"}}
    with pytest.raises(MalformedUpdate):
        api.read_page(answered({"jobs": None}), window)


def test_a_list_may_name_the_address_of_its_next_page(tmp_path: Path) -> None:
    api = api_with(tmp_path, ('next_query = "page"', ""))
    page = api.read_page(answered({"jobs": [{"id": "1"}], "more": "/jobs?cursor=x"}), Window("m", datetime.now(UTC)))
    assert page.following == Request(method="GET", url="/jobs?cursor=x")


def test_a_task_without_a_word_or_an_id_is_no_task(tmp_path: Path) -> None:
    api = api_with(tmp_path)
    for job in ({"id": "1"}, {"state": "RUNS"}, {"id": "", "state": "RUNS"}, {"id": "x" * 201, "state": "RUNS"}, None):
        with pytest.raises(MalformedUpdate):
            api.read_look(answered({"job": job}), ProviderTask("1"))
    unknown = api.read_look(answered({"job": {"id": "1", "state": "PAUSED", "share": 0.25}}), ProviderTask("1"))
    assert isinstance(unknown, ProviderUpdate)
    assert (unknown.status, unknown.word, unknown.progress) == (None, "paused", 25)


def test_a_challenge_is_answered_as_json_or_as_text(tmp_path: Path) -> None:
    table = "[webhook]\n"
    text = api_with(tmp_path, (table, '[webhook]\nchallenge = "ask"\n')).parse_webhook({"ask": "abc"})
    assert text == ChallengeAnswer(b"abc", "text/plain; charset=utf-8")
    assert shipped("minimax").parse_webhook({"challenge": "abc"}) == ChallengeAnswer(b'{"challenge":"abc"}')


def test_what_a_webhook_does_not_have_is_looked_at() -> None:
    done = {"task_id": "7", "status": "Success", "file_id": "9", "base_resp": {"status_code": 0}}
    assert shipped("minimax").parse_webhook(done) == LookNow("7")
    assert shipped("assemblyai").parse_webhook({"transcript_id": "7", "status": "completed"}) == LookNow("7")
    with pytest.raises(MalformedUpdate):
        shipped("luma").parse_webhook({})


def test_a_result_that_says_that_it_failed_is_a_failure(tmp_path: Path) -> None:
    more = '\n[result]\npath = "/jobs/{id}/result"\noutput = "out"\nerror = "wrong"\n'
    api = api_with(tmp_path, more=more)
    look = answered({"job": {"id": "7", "state": "DONE"}})
    assert api.read_look(look, ProviderTask("7")) == Request(method="GET", url="/jobs/7/result")
    failed = api.read_result(answered({"wrong": "no face found"}), ProviderTask("7"), look)
    assert (failed.status, failed.error and failed.error["message"]) == (TaskStatus.FAILED, "no face found")
    good = api.read_result(answered({"out": ["https://x.example/a.png"]}), ProviderTask("7"), look)
    assert (good.status, good.output and good.output["image_url"]) == (TaskStatus.COMPLETED, "https://x.example/a.png")


@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_an_hmac_over_time_and_body_is_checked(tmp_path: Path, encoding: str) -> None:
    proof = 'by = "hmac"\nsecret = "hook_secret"\nencoding = "' + encoding + '"\n'
    changes = [
        ('by = "ed25519"\n', proof),
        ('encoding = "base64"\n', ""),
        ('jwks = "https://keys.everything.example/keys.json"\n', ""),
        ('timestamp_header = "X-Time"\n', 'signature_field = "v1"\ntimestamp_field = "t"\n'),
        ("{timestamp}.{body_sha256}", "{header.x-id}.{timestamp},{body}"),
        ('hosts = ["keys.everything.example"]', 'credentials = ["api_key", "hook_secret"]'),
    ]
    api = api_with(tmp_path, *changes)
    body = b'{"a":"{body}{timestamp}"}'
    made = hmac.digest(b"s3", b"7." + str(int(NOW)).encode() + b"," + body, "sha256")
    text = made.hex() if encoding == "hex" else base64.b64encode(made).decode()

    def checked(content: bytes = body, seconds: float = NOW, secret: str = "s3", later: float = 0) -> Signature:
        headers = [(b"x-signature", f"t={int(seconds)},v1={text}".encode()), (b"x-id", b"7")]
        return api.verify(content, headers, credentials={"hook_secret": secret}, keys=None, now=NOW + later)

    assert checked() == Signature.VALID
    assert checked(content=body + b" ") == Signature.WRONG
    assert checked(seconds=NOW + 1) == Signature.WRONG
    assert checked(secret="other") == checked(secret="") == Signature.WRONG
    assert (checked(later=299), checked(later=301)) == (Signature.VALID, Signature.WRONG)
    assert api.verify(body, [], credentials={"hook_secret": "s3"}, keys=None, now=NOW) == Signature.WRONG


def test_standard_webhooks_are_checked_with_the_secret_of_the_account(tmp_path: Path) -> None:
    changes = [
        ('by = "ed25519"\n', 'by = "standard"\nsecret = "hook_secret"\n'),
        ('jwks = "https://keys.everything.example/keys.json"\n', ""),
        ('hosts = ["keys.everything.example"]', 'credentials = ["api_key", "hook_secret"]'),
    ]
    api = api_with(tmp_path, *changes)
    made = hmac.digest(bytes(range(24)), f"m.{int(NOW)}.".encode() + b"{}", "sha256")
    signature = f"v1,{base64.b64encode(made).decode()}".encode()
    headers = [(b"webhook-id", b"m"), (b"webhook-timestamp", str(int(NOW)).encode()), (b"webhook-signature", signature)]
    for body, expected in ((b"{}", Signature.VALID), (b"{ }", Signature.WRONG)):
        assert api.verify(body, headers, credentials={"hook_secret": SECRET}, keys=None, now=NOW) == expected


def test_an_optional_proof_is_asked_for_once_the_account_has_its_secret() -> None:
    api = shipped("openrouter")
    assert api.verify(b"{}", [], credentials={}, keys=None, now=NOW) == Signature.VALID
    assert api.verify(b"{}", [], credentials={"webhook_secret": "s"}, keys=None, now=NOW) == Signature.WRONG


@pytest.mark.parametrize("by", ["standard", "hmac"])
def test_at_one_address_for_all_tasks_no_webhook_is_believed_without_a_secret(tmp_path: Path, by: str) -> None:
    changes = [
        ('by = "ed25519"\n', f'by = "{by}"\nsecret = "hook_secret"\noptional = true\n'),
        ('jwks = "https://keys.everything.example/keys.json"\n', ""),
        ('hosts = ["keys.everything.example"]', 'optional_credentials = ["hook_secret"]'),
        ('callback = "task"', 'callback = "account"'),
        ('callback = { in = "query", name = "hook" }\n', ""),
    ]
    api = api_with(tmp_path, *changes)
    now = str(int(NOW)).encode()
    headers = [(b"webhook-id", b"m"), (b"webhook-timestamp", now), (b"webhook-signature", b"v1,AAAA")]
    for signed in ([], headers, [(b"x-signature", b"AAAA"), (b"x-time", now)]):
        assert api.verify(b"{}", signed, credentials={}, keys=None, now=NOW) == Signature.WRONG


def test_a_signature_with_letters_that_base64_has_not_is_wrong() -> None:
    headers = [(b"x-signature", b"\xe9\xff"), (b"x-time", str(int(NOW)).encode())]
    keys = {"keys": [{"x": "AAAA"}]}
    assert shipped("everything").verify(b"{}", headers, credentials={}, keys=keys, now=NOW) == Signature.WRONG


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.sampled_from(["..", "Success", "completed", "SUCCESS", "DONE", "dubbed", "succeed", "a\r\nb"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "task_id",
                    "taskId",
                    "file_id",
                    "target_languages",
                    "errors",
                    "jobs",
                    "status",
                    "state",
                    "data",
                    "task",
                    "code",
                    "error",
                    "output",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ALL = {name: shipped(name) for name in (*names_in(SHIPPED), "everything")}


@given(value=json_values, status=st.sampled_from((200, 202, 400, 404, 429, 500)))
@settings(max_examples=60, deadline=None)
def test_whatever_a_provider_sends_comes_to_an_outcome_or_is_malformed(value: Any, status: int) -> None:
    answer, task = answered(value, status), ProviderTask("1", None, "m", "videos/text2video")
    window = Window("m", datetime(2026, 1, 1, tzinfo=UTC))
    for api in ALL.values():
        submit_outcome(answer, api, new_task(), "default")
        if isinstance(fetch_outcome(answer, api, task, "default"), Request):
            result_outcome(answer, api, task, answer, "default")
        cancel_outcome(answer, api, "default")
        if api.capabilities.finds:
            found_outcome(answer, api, "reference", "default")
        with suppress(MalformedUpdate):
            api.parse_webhook(value)
        with suppress(MalformedUpdate):
            if api.capabilities.lists:
                api.read_page(answer, window)


@pytest.mark.parametrize(("found", "expected"), [(0, True), (False, False), ("", False), ([], False), ({}, False)])
def test_a_zero_holds_as_jmespath_has_it(found: Any, expected: bool) -> None:
    assert Expression("x").holds({"x": found}) is expected
    assert Expression("x || 'other'").of({"x": found}) == (found if expected else "other")


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("to_number(x)", "9" * 400, None),
        ("to_number(x)", "-" + "9" * 30, -1e30),
        ("to_number(x)", "nan", None),
        ("{a: [ceil(x)]}", 1e300, {"a": [1e300]}),
        ("ceil(x)", 1.5, 2),
        ("percent(x)", 1e308, None),
        ("sum(x)", [1e308, 1e308], None),
    ],
)
def test_what_a_function_makes_of_a_number_is_a_number_of_json(text: str, value: Any, expected: Any) -> None:
    found = Expression(text).of({"x": value})
    assert found == expected
    orjson.dumps(found)


def test_no_value_in_a_path_makes_a_part_of_dots(tmp_path: Path) -> None:
    api = api_with(tmp_path, ('path = "/jobs/{id}"', 'path = "/jobs/.{model}/{id}"'))
    with pytest.raises(CannotAsk):
        api.look(ProviderTask("1", None, "."))


def test_an_input_that_makes_no_body_is_not_sent_without_one(tmp_path: Path) -> None:
    api = api_with(tmp_path, ('body = "{input: input}"', 'body = "merge(input, input.more)"'))
    assert api.create(new_task(input={"more": {"b": 2}})).body == {"more": {"b": 2}, "b": 2}
    with pytest.raises(CannotAsk):
        api.create(new_task(input={"more": "text"}))


@pytest.mark.parametrize("name", ["everything", "openrouter"])
@pytest.mark.parametrize("signature", ["\xe9", "v1=\xe9", "%%%", "\x00", "t=\xe9,v1=\xe9", ""])
@pytest.mark.parametrize("keys", [None, {"keys": [{"x": "\xe9"}, {"x": 7}, 7]}, {"keys": {}}, []])
def test_a_signature_of_any_letters_is_wrong(name: str, signature: str, keys: Any) -> None:
    content = signature.encode("latin-1")
    seconds = str(int(NOW)).encode()
    headers = [(each, content) for each in (b"x-signature", b"x-openrouter-signature", b"webhook-signature")]
    headers += [(b"x-time", seconds), (b"webhook-timestamp", seconds), (b"webhook-id", b"m")]
    checked = shipped(name).verify(b"{}", headers, credentials={"webhook_secret": SECRET}, keys=keys, now=NOW)
    assert checked == Signature.WRONG
    assert verify_standard(SECRET, b"{}", [*headers[3:], (b"webhook-signature", b"v1," + content)], NOW) == checked
