"""PiAPI's tasks, in all forms of `receiver/providers/piapi/CONTRACT.md`, as updates."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate, Source
from receiver.providers import MalformedUpdate
from receiver.providers.piapi import PiAPI
from receiver.providers.piapi.tasks import read_task
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.reasons import NO_REASON

PAYLOADS = Path(__file__).parent.parent / "payloads"
CDN = "https://cdn.example.com/"
PIAPI = PiAPI(base_url="http://127.0.0.1:9", api_key=None, timeout=1, rate_limiter=RateLimiter(1))

EXPECTED: dict[str, dict[str, Any]] = {
    "flux": {"image_url": CDN + "flux.png", "image_urls": None},
    "hailuo": {"video_url": CDN + "hailuo.mp4", "download_url": CDN + "hailuo-dl.mp4"},
    "wan": {"video_url": CDN + "wan.mp4"},
    "kling_turbo": {"video_url": CDN + "kling-turbo.mp4"},
    "kling_works": {"video_url": CDN + "clean.mp4"},
    "veo3": {"video_url": CDN + "veo3.mp4"},
    "sora2": {"video_url": CDN + "sora2.mp4"},
    "seedance": {"video_url": CDN + "seedance.mp4"},
    "luma": {"video_url": CDN + "luma.mp4"},
    "diffrhythm": {"audio_url": CDN + "song.mp3"},
    "midjourney": {
        "image_url": CDN + "mj-1.png",
        "image_urls": None,
        "temporary_image_urls": [f"{CDN}mj-{n}.png" for n in (1, 2, 3, 4)],
        "discord_image_url": CDN + "discord.png",
    },
    "ai_hug": {"video_url": CDN + "hug.mp4"},
    "ace_step": {"audio_url": CDN + "old-marked.mp3"},
    "mmaudio": {"video_url": CDN + "old-clean.mp4"},
}
URL_NAMES = {"image_url", "image_urls", "video_url", "audio_url"}


def payload(name: str) -> bytes:
    return (PAYLOADS / f"{name}.json").read_bytes()


def parse(task: Any) -> ProviderUpdate:
    """Parse a task given as a dict, with an id if it has none."""
    return PIAPI.parse_webhook(orjson.dumps({"timestamp": 1, "data": {"task_id": "t", **task}}))


@pytest.mark.parametrize("name", EXPECTED)
def test_each_model_family_gets_its_urls(name: str) -> None:
    update = PIAPI.parse_webhook(payload(name))
    assert update.status == TaskStatus.COMPLETED
    assert update.output is not None
    expected = EXPECTED[name]
    assert {key: update.output.get(key) for key in expected} == expected
    filled = {key for key in URL_NAMES if update.output.get(key)}
    assert filled == {key for key in URL_NAMES & set(expected) if expected[key]}
    assert update.output["output_files"][0]["url"] in expected.values()


@pytest.mark.parametrize("name", sorted(path.stem for path in PAYLOADS.glob("*.json")))
def test_no_update_contains_the_payload_s_secret(name: str) -> None:
    body = payload(name)
    assert "planted-secret" not in PIAPI.redact(body)
    if not name.startswith("error"):
        update = PIAPI.parse_webhook(body)
        assert "planted-secret" not in repr(update)
        assert update.error is None or name in ("failed", "completed_with_error")


def test_all_fields_of_a_webhook_are_read() -> None:
    update = PIAPI.parse_webhook(payload("webhook"), attempt=3)
    assert update == ProviderUpdate(
        source=Source.WEBHOOK,
        status=TaskStatus.PROCESSING,
        provider_task_id="7d1e0000-0000-4000-8000-000000000015",
        attempt=3,
        model="kling",
        task_type="video_generation",
        input={"prompt": "a tram"},
        progress=45,
        output={"video_url": "", "percent": 45},
        logs=[],
        meta=update.meta,
        config={
            "service_mode": "public",
            "webhook_config": {"endpoint": "https://ringback.example.com/hooks/piapi/0197"},
        },
        created_at=datetime(2025, 3, 2, 10, 15, 30, 123456, tzinfo=UTC),
        started_at=datetime(2025, 3, 2, 10, 15, 34, 500000, tzinfo=UTC),
        ended_at=datetime(2025, 3, 2, 10, 16, 2, tzinfo=UTC),
    )
    assert update.meta is not None
    assert update.meta["usage"]["consume"] == 150000


def test_a_new_task_has_no_output_yet() -> None:
    update = PIAPI.parse_webhook(payload("created"))
    assert update.status == TaskStatus.PENDING
    assert (update.output, update.error, update.logs, update.started_at, update.ended_at) == (None,) * 5


def test_the_older_envelope_is_read_too() -> None:
    update = PIAPI.parse_webhook(payload("ace_step"))
    assert update.input == {"prompt": "sea", "n": 1}
    assert update.model is None
    assert update.started_at is None
    assert update.ended_at == datetime(2025, 3, 2, 10, 16, 2, tzinfo=UTC)
    assert update.meta is not None
    assert update.meta["usage"] == {"frozen": 10, "consume": 25}
    assert update.output is not None
    assert update.output["works"][0]["workId"] == 51
    assert update.output["task"]["id"] == 41
    assert [each["kind"] for each in update.output["output_files"]] == ["audio", "image"]


def test_what_stands_beside_the_output_is_kept_and_the_envelope_s_own_fields_are_not() -> None:
    clips = {"c-1": {"id": "c-1", "audio_url": CDN + "a.mp3", "image_url": CDN + "a.png"}}
    own = {"model": "suno", "progress": 3, "queue_position": 2, "task_status_msg": "fine", "user_id": 7, "logs": []}
    update = parse({"status": "complete", "clips": clips, "title": "Sea", "text": "la la", "input": "{}", **own})
    assert update.output is not None
    assert set(update.output) == {"clips", "title", "text", "audio_url", "output_files"}
    assert (update.output["clips"], update.output["audio_url"]) == (clips, CDN + "a.mp3")
    assert parse({"status": "pending", "clips": {}, "title": "", "works": [], **own}).output is None


def test_an_output_that_is_json_in_a_text_is_parsed() -> None:
    text = orjson.dumps({"images": [CDN + "1.png"], "note": "a\0b"}).decode()
    update = parse({"status": "completed", "output": text})
    assert update.output is not None
    assert (update.output["image_url"], update.output["note"]) == (CDN + "1.png", "ab")
    listed = parse({"status": "completed", "output": f'["{CDN}v.mp4"]'})
    assert listed.output is not None
    assert listed.output["video_url"] == CDN + "v.mp4"
    assert parse({"output": "[broken"}).output == {"value": "[broken"}


def test_a_failure_keeps_all_of_its_error() -> None:
    update = PIAPI.parse_webhook(payload("failed"))
    assert update.status == TaskStatus.FAILED
    assert update.error == {
        "code": 10000,
        "message": "task failed",
        "raw_message": "upstream: moderation",
        "detail": {"step": 2},
    }


def test_completed_with_an_error_and_no_output_is_failed() -> None:
    update = PIAPI.parse_webhook(payload("completed_with_error"))
    assert update.status == TaskStatus.FAILED
    assert update.error is not None
    assert update.error["code"] == 2013


def test_completed_with_an_error_and_an_output_is_completed() -> None:
    update = parse({"status": "completed", "output": {"image_url": "https://e.com/i"}, "error": {"code": 1}})
    assert update.status == TaskStatus.COMPLETED


@pytest.mark.parametrize("shape", ["webhook", "envelope", "bare"])
def test_the_task_is_found_in_every_wrapping(shape: str) -> None:
    task = {"task_id": "abc", "status": "pending"}
    body = {"webhook": {"timestamp": 1, "data": task}, "envelope": {"code": 200, "data": task}, "bare": task}[shape]
    assert PIAPI.parse_webhook(orjson.dumps(body)).provider_task_id == "abc"


WORDS = {
    TaskStatus.COMPLETED: "Completed|SUCCESS|succeeded|Complete|done|Finished|success |ok|TASK_STATUS_SUCCEED",
    TaskStatus.PROCESSING: "Processing|running|Starting|retry|in_progress|In Progress|in-progress|generating|Rendering",
    TaskStatus.PENDING: "Pending|queued|in_queue|IN QUEUE|Queueing|submitted|waiting|created|not_start",
    TaskStatus.STAGED: "Staged",
    TaskStatus.FAILED: "FAILED|failure|Error|rejected|expired|timeout|Timed Out|timed_out|TimedOut|aborted|Fail",
    TaskStatus.CANCELLED: "cancelled| Canceled |cancelled-by-user|user canceled|aborted by user",
}


@pytest.mark.parametrize(
    ("word", "status"), [(word, status) for status, words in WORDS.items() for word in words.split("|")]
)
def test_plain_synonyms_of_a_status_are_that_status_however_they_are_written(word: str, status: TaskStatus) -> None:
    update = parse({"status": word})
    assert (update.status, update.word) == (status, "")


def test_an_unknown_word_is_kept_bounded_and_is_not_a_status() -> None:
    assert (parse({"status": "Moderated"}).status, parse({"status": "Moderated"}).word) == (None, "moderated")
    assert parse({"status": "x" * 100}).word == "x" * 64


@pytest.mark.parametrize(
    ("status", "word"),
    [(3, "3"), (99, "99"), (0, "0"), (1.5, "1.5"), (True, "true"), (False, "false"), (["done"], '["done"]'), ([], "")],
)
def test_a_status_that_is_not_a_text_is_an_unknown_word_and_the_task_is_read(status: Any, word: str) -> None:
    update = parse({"status": status, "output": {"image_url": CDN + "a.png"}})
    assert (update.status, update.word) == (None, word)
    assert update.output is not None


def test_an_unknown_word_comes_with_the_output_and_the_error() -> None:
    update = parse(
        {"status": "moderated", "output": {"url": CDN + "a.png"}, "error_message": "nsfw", "message": "hello"}
    )
    assert (update.status, update.word) == (None, "moderated")
    assert update.output is not None
    assert update.output["image_url"] == CDN + "a.png"
    assert update.error == {"code": None, "message": "nsfw", "raw_message": "", "detail": None}
    assert parse({"status": "moderated", "message": "hello", "detail": "two more"}).error is None


@pytest.mark.parametrize("name", ["task_status", "taskStatus", "state", "jobStatus"])
@pytest.mark.parametrize("beside", [{}, {"status": ""}, {"status": None}, {"status": 200}])
def test_a_task_without_a_status_word_has_that_of_another_field(name: str, beside: dict[str, Any]) -> None:
    update = parse({**beside, name: "SUCCEED", "output": {"url": CDN + "a.png"}})
    assert (update.status, update.word) == (TaskStatus.COMPLETED, "")
    assert update.output is not None
    assert name not in update.output


def test_a_status_word_counts_before_other_fields_even_if_it_is_unknown() -> None:
    update = parse({"status": "moderating", "state": "success"})
    assert (update.status, update.word) == (None, "moderating")


@pytest.mark.parametrize("task", [{}, {"status": ""}, {"status": None}, {"status": "  "}])
def test_a_missing_status_is_unknown_without_a_word(task: dict[str, Any]) -> None:
    assert (parse(task).status, parse(task).word) == (None, "")


@pytest.mark.parametrize(
    ("task", "progress"),
    [
        ({}, 0),
        ({"progress": 30}, 30),
        ({"progress": 30.9}, 30),
        ({"progress": "45%"}, 45),
        ({"progress": " 12.5 "}, 12),
        ({"output": {"percent": 7}}, 7),
        ({"output": {"progress": 8}}, 8),
        ({"progress": 0, "output": {"task_progress": 9}}, 9),
        ({"progress": -5}, 0),
        ({"progress": 1e300}, 100),
        ({"progress": 1e18}, 100),
        ({"progress": True}, 0),
        ({"progress": ["50%"]}, 0),
        ({"progress": {"percent": 50}}, 0),
        ({"progress": "NaN"}, 0),
        ({"progress": "150 %"}, 100),
        ({"progress": "soon", "output": "x"}, 0),
    ],
)
def test_progress_is_found_and_clipped(task: dict[str, Any], progress: int) -> None:
    assert parse(task).progress == progress


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-09-25T07:40:08.333962391Z", datetime(2024, 9, 25, 7, 40, 8, 333962, tzinfo=UTC)),
        ("2024-09-25T07:40:08.333962391+08:00", datetime(2024, 9, 24, 23, 40, 8, 333962, tzinfo=UTC)),
        ("2024-09-25T07:40:08-03:30", datetime(2024, 9, 25, 11, 10, 8, tzinfo=UTC)),
        ("2024-09-25T07:40:08", datetime(2024, 9, 25, 7, 40, 8, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+08:00", None),
        ("9999-12-31T23:59:59-08:00", None),
        ("soon", None),
        ("", None),
        (1724511853, datetime(2024, 8, 24, 15, 4, 13, tzinfo=UTC)),
        ("1724511853", datetime(2024, 8, 24, 15, 4, 13, tzinfo=UTC)),
        (1724511853.5, datetime(2024, 8, 24, 15, 4, 13, 500000, tzinfo=UTC)),
        (1724511853250, datetime(2024, 8, 24, 15, 4, 13, 250000, tzinfo=UTC)),
        ("2024-08-24 15:04:13", datetime(2024, 8, 24, 15, 4, 13, tzinfo=UTC)),
        ("20240824", datetime(2024, 8, 24, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        (0, None),
        (-62135596800, None),
        (1e300, None),
        ("9" * 19, None),
        (True, None),
        ([1724511853], None),
        ({}, None),
    ],
)
def test_times_become_utc_or_none(text: Any, moment: datetime | None) -> None:
    assert parse({"meta": {"created_at": text}}).created_at == moment


@pytest.mark.parametrize(
    ("given_input", "read"),
    [
        ('{"a": 1}', {"a": 1}),
        ("a prompt", "a prompt"),
        ("{broken", "{broken"),
        ("[1]", "[1]"),
        ({"a": 1}, {"a": 1}),
        (None, None),
    ],
)
def test_an_input_that_is_json_in_a_text_is_parsed(given_input: Any, read: Any) -> None:
    assert parse({"input": given_input}).input == read


@pytest.mark.parametrize(
    ("error", "status", "kept"),
    [
        ({"code": 0, "message": ""}, "processing", None),
        ({"code": 0, "message": "noise"}, "processing", None),
        ({"code": 0, "message": "noise"}, "failed", {"code": 0, "message": "noise"}),
        ({"message": "success"}, "completed", None),
        ("none", "processing", None),
        ([], "completed", None),
        ("broken", "failed", {"code": None, "message": "broken"}),
        ({"message": "broken"}, "pending", {"code": None, "message": "broken"}),
        ({"code": "E7", "message": {"en": "x"}}, "failed", {"code": "E7", "message": '{"en":"x"}'}),
        (10012, "failed", {"code": 10012, "message": NO_REASON}),
        ({"code": 7, "message": ""}, "failed", {"code": 7, "message": NO_REASON}),
        ({"code": 7, "raw_message": "raw"}, "failed", {"code": 7, "message": "raw", "raw_message": "raw"}),
        (["a", "b", "a"], "failed", {"code": None, "message": "a; b", "detail": ["a", "b", "a"]}),
    ],
)
def test_errors_are_kept_when_they_are_errors(error: Any, status: str, kept: dict[str, Any] | None) -> None:
    update = parse({"status": status, "error": error})
    assert update.error == (None if kept is None else {"raw_message": "", "detail": None, **kept})


@pytest.mark.parametrize(
    "task",
    [
        *({}, {"error": None}, {"error": []}, {"error": {}}, {"error": {"code": 0, "message": ""}}),
        *({"error": {"code": ""}}, {"message": "success"}, {"error": True}),
        {"error": "", "detail": {}, "logs": ["started", 7]},
    ],
)
def test_a_failed_task_always_has_an_error(task: dict[str, Any]) -> None:
    update = parse({"status": "failed", **task})
    assert update.error is not None
    assert update.error["message"] == NO_REASON


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"error": ["content moderated", "nsfw"]}, "content moderated; nsfw"),
        ({"error": {"msg": "too long", "type": "limit"}}, "too long"),
        ({"error": {"code": 3, "reason": "no face"}}, "no face"),
        ({"error": {"code": 3, "message": ["one", "two"]}}, "one; two"),
        ({"error": {"code": 3, "message": '{"error": {"message": "quoted"}}'}}, "quoted"),
        ({"error": '{"a": 1}'}, '{"a": 1}'),
        ({"error": {"error": {"message": "inner"}}}, "inner"),
        ({"errors": [{"msg": "one"}, {"message": "two"}]}, "one; two"),
        ({"message": "content moderated"}, "content moderated"),
        ({"task_status_msg": "risk control"}, "risk control"),
        ({"error_message": "e1"}, "e1"),
        ({"errorMessage": "e2"}, "e2"),
        ({"fail_reason": "e3", "message": "success"}, "e3"),
        ({"failure_reason": {"text": "e4"}}, "e4"),
        ({"err_msg": "e5"}, "e5"),
        ({"output": {"error_messages": ["e6", "e7"]}}, "e6; e7"),
        ({"output": {"error": {"message": "e8"}}}, "e8"),
        ({"output": {"message": "e9"}}, "e9"),
        ({"detail": "e10"}, "e10"),
        ({"detail": [{"loc": ["body", "input"], "msg": "field required"}]}, "body.input: field required"),
        ({"logs": ["started", {"message": "Error: out of memory"}, "bye"]}, "Error: out of memory"),
        ({"error": {"code": 0, "message": ""}, "message": "said elsewhere"}, "said elsewhere"),
        ({"failMsg": "flagged", "failCode": "422"}, "flagged"),
        ({"last_error": {"message": "no face"}}, "no face"),
        ({"meta": {"exception": "out of memory"}}, "out of memory"),
        ({"output": {"works": [{"status": "failed", "error": "blurred"}]}}, "blurred"),
        ({"result": {"failure": {"reason": "moderated"}}, "statusMessage": "failed"}, "moderated"),
        ({"status_msg": "risk control"}, "risk control"),
        ({"error": {"prompt": "too long", "code": "E1"}}, "prompt: too long"),
        ({"logs": [{"time": 1, "message": "NSFW detected"}]}, "NSFW detected"),
        ({"output": "the prompt was blocked"}, "the prompt was blocked"),
        ({"output": ["the prompt was blocked"]}, "the prompt was blocked"),
        ({"output": CDN + "partial.png", "input": {"reason": "why"}, "error_count": "two"}, NO_REASON),
        ({"error": "<!DOCTYPE html><html><head><title>502 Bad\n Gateway</title></head></html>"}, "502 Bad Gateway"),
    ],
)
def test_the_reason_of_a_failure_is_found_wherever_it_is(task: dict[str, Any], message: str) -> None:
    update = parse({"status": "failed", **task})
    assert update.error is not None
    assert update.error["message"] == message
    assert set(update.error) == {"code", "message", "raw_message", "detail"}


def test_the_original_of_an_error_is_kept_whole_if_it_is_not_just_the_message() -> None:
    def detail(**task: Any) -> Any:
        update = parse({"status": "failed", **task})
        assert update.error is not None
        return update.error["detail"]

    assert detail(fail_reason="x") is None
    assert detail(error={"code": 1, "message": "x"}) is None
    assert detail(error={"code": 1, "message": "x", "trace": [1]}) == {"code": 1, "message": "x", "trace": [1]}
    assert detail(error={"code": 1, "message": ["x", "y"]}) == {"code": 1, "message": ["x", "y"]}
    assert detail(output={"error_messages": ["x", "y"]}) == ["x", "y"]
    assert detail(error="x" * 5000) == "x" * 5000
    long = parse({"status": "failed", "error": "x" * 5000}).error
    assert long is not None
    assert len(long["message"]) == 1000


def test_a_code_beside_the_words_is_kept() -> None:
    update = parse({"status": "failed", "error_code": 1301, "error_msg": "sensitive"})
    assert update.error == {"code": 1301, "message": "sensitive", "raw_message": "", "detail": None}
    camel = parse({"status": "failed", "failCode": "422", "failMsg": "flagged"})
    assert camel.error == {"code": "422", "message": "flagged", "raw_message": "", "detail": None}


def test_completed_with_a_list_of_errors_and_no_output_is_failed() -> None:
    update = parse({"status": "completed", "output": {"task_progress": 100}, "error": ["moderated"]})
    assert (update.status, update.error and update.error["message"]) == (TaskStatus.FAILED, "moderated")


@pytest.mark.parametrize("config", ["none", 7, ["x"], None, {"webhook_config": "none"}, {"webhook_config": [1]}])
def test_a_config_of_another_form_is_harmless(config: Any) -> None:
    read = parse({"config": config}).config
    assert read in (None, {})


@pytest.mark.parametrize("number", [123456, 1, 2**63])
def test_an_id_may_be_a_whole_number(number: int) -> None:
    assert parse({"task_id": number}).provider_task_id == str(number)
    assert parse({"task_id": 7.0}).provider_task_id == "7"


@pytest.mark.parametrize("data", [{"taskId": "a"}, {"taskId": 7}, {"id": "a", "status": "pending"}])
def test_only_the_answer_to_a_create_call_may_name_the_id_otherwise(data: dict[str, Any]) -> None:
    for body in ({"code": 200, "data": data}, data):
        update = read_task(body, source=Source.SUBMIT)
        assert update.provider_task_id in ("a", "7")
        for source in (Source.WEBHOOK, Source.POLL):
            with pytest.raises(MalformedUpdate):
                read_task(body, source=source)


def test_an_id_without_a_status_is_not_the_task_s() -> None:
    for data in ({"id": "request-1"}, {"id": "account-1", "status": "active user"}):
        with pytest.raises(MalformedUpdate):
            read_task({"code": 200, "data": data}, source=Source.SUBMIT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"7",
        b'"text"',
        b"null",
        b"{}",
        b'{"data": null}',
        b'{"data": [1]}',
        b'{"data": {}}',
        b'{"data": {"task_id": ""}}',
        b'{"data": {"task_id": true}}',
        b'{"data": {"task_id": 5.5}}',
        b'{"data": {"task_id": -5}}',
        b'{"data": {"task_id": ["a"]}}',
        b'{"data": {"task_id": "\\u0000"}}',
        b'{"data": {"task_id": "' + b"x" * 201 + b'"}}',
        b'{"data": {"task_id": "a", "n": ' + b"[" * 101 + b"]" * 101 + b"}}",
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_task_is_malformed_and_the_message_does_not_repeat_it(body: bytes) -> None:
    with pytest.raises(MalformedUpdate) as caught:
        PIAPI.parse_webhook(body)
    assert 0 < len(str(caught.value)) < 80
    assert "xxx" not in str(caught.value)


def test_nul_characters_are_removed_everywhere() -> None:
    update = parse({"status": "processing\0", "lo\0gs": ["a\0b"], "input": '{"p": "\\u0000q"}'})
    assert update.status == TaskStatus.PROCESSING
    assert update.input == {"p": "q"}
    assert update.logs == ["ab"]


def test_what_was_read_can_be_written_again() -> None:
    nested: Any = "x"
    for _ in range(90):
        nested = [nested]
    update = parse({"output": {"deep": nested}, "detail": 2**63})
    assert orjson.dumps([update.output, update.detail])


def test_an_item_of_the_history_is_an_update_of_source_poll() -> None:
    task = orjson.loads(payload("flux"))["data"]
    update = PIAPI.parse_task(task, attempt=2)
    assert (update.source, update.attempt) == (Source.POLL, 2)
    assert "planted-secret" not in repr(update)
    assert task["config"]["webhook_config"]["secret"] == "planted-secret-5f0c"


@pytest.mark.parametrize("value", [2**80, "\ud800", {1, 2}])
def test_an_item_that_cannot_be_written_as_json_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedUpdate):
        PIAPI.parse_task({"task_id": "a", "input": value})
