"""The sandbox's paths, called in this process. A task with `before_answer` and without an endpoint has ended
when its create call is answered, so that no test has to wait."""

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from receiver.sandbox import SandboxOptions, create_sandbox

ENDED = {"webhook": "before_answer", "duration": 0, "pending_seconds": 0}


@asynccontextmanager
async def client_of(options: SandboxOptions) -> AsyncIterator[httpx.AsyncClient]:
    app = create_sandbox(options)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://sandbox", headers={"x-api-key": "k"}
        ) as client,
    ):
        yield client


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(SandboxOptions()) as client:
        yield client


def body(model: str = "Qubico/flux1-dev", *, config: Any = None, **sandbox: Any) -> dict[str, Any]:
    return {
        "model": model,
        "task_type": "txt2img",
        "input": {"prompt": "p", "sandbox": sandbox},
        "config": config,
    }


async def create(client: httpx.AsyncClient, **given: Any) -> dict[str, Any]:
    answer = await client.post("/api/v1/task", json=body(**given))
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def finished(client: httpx.AsyncClient, **given: Any) -> dict[str, Any]:
    made = await create(client, **{**ENDED, **given})
    answer: dict[str, Any] = (await client.get(f"/api/v1/task/{made['task_id']}")).json()
    return answer


async def test_a_new_task_is_pending_and_has_no_times_yet(client: httpx.AsyncClient) -> None:
    task = await create(client, outcome="never", config={"service_mode": "private"})
    assert task["status"] == "pending"
    assert task["config"] == {
        "service_mode": "private",
        "webhook_config": {"endpoint": "", "secret": ""},
    }
    assert task["meta"]["started_at"] == task["meta"]["ended_at"] == "0001-01-01T00:00:00Z"
    assert task["meta"]["created_at"].endswith("Z")
    assert len(task["meta"]["created_at"]) == len("2024-09-25T07:40:08.333962391Z")
    assert task["error"] == {"code": 0, "raw_message": "", "message": "", "detail": None}
    assert task["output"] is None
    assert task["logs"] is None


async def test_a_task_completes_with_its_output(client: httpx.AsyncClient) -> None:
    answer = await finished(client)
    task = answer["data"]
    assert (answer["code"], answer["message"], task["status"]) == (200, "success", "completed")
    assert task["output"]["image_url"] == f"http://sandbox/files/{task['task_id']}.png"
    assert task["meta"]["usage"] == {"type": "point", "frozen": 0, "consume": 20000}
    assert task["meta"]["ended_at"] > task["meta"]["started_at"] > task["meta"]["created_at"]


async def test_a_failed_task_has_its_error(client: httpx.AsyncClient) -> None:
    error = {"code": 42, "raw_message": "raw", "message": "said"}
    task = (await finished(client, outcome="failed", error=error))["data"]
    assert task["status"] == "failed"
    assert task["error"] == {**error, "detail": None}
    assert task["output"] == {}


async def test_a_completed_task_may_have_an_error_and_no_output(client: httpx.AsyncClient) -> None:
    task = (await finished(client, outcome="completed_with_error"))["data"]
    assert (task["status"], task["output"]) == ("completed", {})
    assert task["error"]["code"] != 0


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("cancelled", "cancelled"), ("never", "processing"), ("failed_then_completed", "completed")],
)
async def test_other_outcomes(client: httpx.AsyncClient, outcome: str, status: str) -> None:
    assert (await finished(client, outcome=outcome))["data"]["status"] == status


async def test_the_first_creates_of_the_same_work_fail(client: httpx.AsyncClient) -> None:
    states = [(await finished(client, fail_attempts=2, key="a"))["data"]["status"] for _ in range(3)]
    assert states == ["failed", "failed", "completed"]
    assert (await finished(client, fail_attempts=1, key="b"))["data"]["status"] == "failed"


async def test_status_words_codes_and_times_follow_the_script(client: httpx.AsyncClient) -> None:
    answer = await finished(client, status_case="title", success_word="success", code=0, timestamps="offset")
    assert (answer["code"], answer["data"]["status"]) == (0, "Success")
    assert answer["data"]["meta"]["created_at"].endswith("+08:00")
    answer = await finished(client, status_case="upper", timestamps="zero", input_as_string=True)
    assert answer["data"]["status"] == "COMPLETED"
    assert answer["data"]["meta"]["ended_at"] == "0001-01-01T00:00:00Z"
    assert answer["data"]["input"].startswith('{"prompt":"p"')


async def test_the_older_envelope_has_no_model(client: httpx.AsyncClient) -> None:
    answer = await finished(client, shape="old_envelope")
    assert answer["code"] == 0
    assert set(answer["data"]) == {"task_id", "input", "status", "metadata", "task", "works"}
    assert answer["data"]["metadata"]["quota_usage"] == 20000
    assert isinstance(answer["data"]["input"], str)
    failed = await finished(client, shape="old_envelope", outcome="failed")
    assert (failed["data"]["status"], failed["data"]["works"]) == ("failed", [])
    assert failed["data"]["error"]["code"] == 10000


async def test_the_older_suno_has_its_clips_beside_the_status(client: httpx.AsyncClient) -> None:
    task = (await finished(client, model="suno", shape="old_suno"))["data"]
    assert set(task) == {"task_id", "input", "status", "clips", "metadata"}
    assert len(task["clips"]) == 2
    failed = (await finished(client, model="suno", shape="old_suno", outcome="failed"))["data"]
    assert (failed["clips"], failed["error"]["code"]) == (None, 10000)


async def test_logs_and_progress_stay_in_the_task(client: httpx.AsyncClient) -> None:
    task = (await finished(client, logs=3, progress=2, outcome="never"))["data"]
    assert task["logs"] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert task["output"] == {"percent": 66, "progress": 66}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"task_type": None}, "task_type"),
        ({"input": None}, "input"),
        ({"input": {"sandbox": {"colour": "red"}}}, "input.sandbox.colour"),
        ({"config": {"webhook_config": {"endpoint": 7}}}, "config.webhook_config.endpoint"),
    ],
)
async def test_an_invalid_create_is_refused_and_the_field_named(
    client: httpx.AsyncClient, change: dict[str, Any], name: str
) -> None:
    answer = await client.post("/api/v1/task", json={**body(), **change})
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert name in answer.json()["message"]


async def test_a_create_whose_body_is_not_json_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/task", content=b"{")).status_code == 400
    assert (await client.post("/api/v1/task", content=b"[]")).status_code == 400


async def test_a_null_config_equals_an_absent_config(client: httpx.AsyncClient) -> None:
    config = {"webhook_config": {"endpoint": None, "secret": None}, "service_mode": None}
    assert (await create(client, config=config))["config"]["webhook_config"]["endpoint"] == ""


async def test_a_request_without_a_key_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/account/info", headers={"x-api-key": ""})
    assert (answer.status_code, answer.json()) == (401, {"code": 401, "message": "unauthorized"})
    bearer = {"x-api-key": "", "authorization": "Bearer anything"}
    assert (await client.get("/account/info", headers=bearer)).status_code == 200


async def test_a_model_path_refuses_a_missing_key_in_the_form_of_its_clients(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/chat/completions", json={}, headers={"x-api-key": ""})
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "unauthorized")
    upload = await client.post("/api/ephemeral_resource", json={}, headers={"x-api-key": ""})
    assert (upload.status_code, upload.json()) == (401, {"code": 401, "message": "unauthorized"})


async def test_the_account_tells_what_the_tasks_cost(client: httpx.AsyncClient) -> None:
    before = (await client.get("/account/info")).json()["data"]
    await finished(client)
    await create(client, pending_seconds=3600)
    after = (await client.get("/account/info")).json()["data"]
    assert before["equivalent_in_usd"] == 100
    assert (after["wallet"]["point_used"], after["wallet"]["point_frozen"]) == (20000, 20000)
    assert after["credits"] == before["credits"] - 40000
    assert after["credit_pack_info"]["used_credits"] == 20000


async def test_with_a_configured_key_every_other_key_is_refused() -> None:
    async with client_of(SandboxOptions(api_key="right")) as client:
        assert (await client.get("/account/info")).status_code == 401
        assert (await client.get("/account/info", headers={"X-API-KEY": "right"})).status_code == 200
        assert (await client.get("/sandbox/stats")).status_code == 200


async def test_an_unknown_task_is_not_found(client: httpx.AsyncClient) -> None:
    for method, path in [("GET", ""), ("DELETE", ""), ("POST", "/cancel")]:
        answer = await client.request(method, f"/api/v1/task/unknown{path}")
        assert (answer.status_code, answer.json()) == (404, {"code": 404, "message": "record not found"})
    assert (await client.get("/nowhere")).json()["code"] == 404


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/cancel")])
async def test_a_pending_task_can_be_cancelled_once(client: httpx.AsyncClient, method: str, path: str) -> None:
    task = await create(client, pending_seconds=3600)
    address = f"/api/v1/task/{task['task_id']}"
    assert (await client.request(method, address + path)).json()["code"] == 200
    assert (await client.get(address)).json()["data"]["status"] == "cancelled"
    again = await client.request(method, address + path)
    assert (again.status_code, again.json()["code"]) == (400, 400)


async def test_neither_a_processing_nor_an_uncancellable_task_can_be_cancelled(client: httpx.AsyncClient) -> None:
    processing = (await finished(client, outcome="never"))["data"]
    uncancellable = await create(client, pending_seconds=3600, cancellable=False)
    for task in (processing, uncancellable):
        assert (await client.delete(f"/api/v1/task/{task['task_id']}")).status_code == 400


async def test_tasks_are_cancelled_by_age_and_model(client: httpx.AsyncClient) -> None:
    kling = await create(client, model="kling", pending_seconds=3600)
    other = await create(client, model="luma", pending_seconds=3600)
    later = int(time.time()) + 10
    queries: list[dict[str, Any]] = [
        {},
        {"model": "kling"},
        {"created_before": later},
        {"created_before": later, "model": "x"},
    ]
    for query in queries:
        assert (await client.delete("/api/v1/tasks", params=query)).status_code == 400
    await client.delete("/api/v1/tasks", params={"created_before": 1, "model": "all"})
    answer = await client.delete("/api/v1/tasks", params={"created_before": later, "model": "kling"})
    assert answer.json() == {"code": 200, "message": "1 tasks cancelled"}
    states = {task["task_id"]: task["status"] for task in (await raw_tasks(client))}
    assert states == {kling["task_id"]: "cancelled", other["task_id"]: "pending"}


async def raw_tasks(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = (await client.get("/sandbox/tasks")).json()["tasks"]
    return tasks


async def history(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    page: dict[str, Any] = (await client.get("/api/open/tasks/histories", params=query)).json()["data"]
    return page


async def test_the_history_is_newest_first_and_paged(client: httpx.AsyncClient) -> None:
    made = [(await create(client, model=model))["task_id"] for model in ("luma", "kling", "luma")]
    page = await history(client, page=1, page_size=2)
    assert {**page, "data": [task["task_id"] for task in page["data"]]} == {
        "data": [made[2], made[1]],
        "page": 1,
        "size": 2,
        "total": 3,
    }
    rest = await history(client, page=2, page_size=2)
    assert [task["task_id"] for task in rest["data"]] == [made[0]]


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("mj", ["midjourney"]),
        ("flux", ["Qubico/flux1-dev", "Qubico/flux1-schnell"]),
        ("music-s", ["music-s"]),
        ("Qubico/flux1-dev", []),
        ("nothing", []),
    ],
)
async def test_the_history_is_filtered_by_family(client: httpx.AsyncClient, name: str, models: list[str]) -> None:
    for model in ("Qubico/flux1-schnell", "Qubico/flux1-dev", "midjourney", "music-s", "music-u"):
        await create(client, model=model)
    page = await history(client, model=name)
    assert ([task["model"] for task in page["data"]], page["total"]) == (models, len(models))


@pytest.mark.parametrize(
    "query", [{"page_size": 101}, {"page_size": 0}, {"page": 0}, {"page": "x"}, {"start_time": "now"}]
)
async def test_the_history_refuses_invalid_parameters(client: httpx.AsyncClient, query: dict[str, Any]) -> None:
    assert (await client.get("/api/open/tasks/histories", params=query)).status_code == 400


async def test_the_history_is_filtered_by_time(client: httpx.AsyncClient) -> None:
    await create(client)
    now = int(time.time())
    for query, total in [
        ({"start_time": now - 60, "end_time": now + 60}, 1),
        ({"start_time": now + 60}, 0),
        ({"end_time": now - 60}, 0),
    ]:
        page = await client.get("/api/open/tasks/histories", params=query)
        assert page.json()["data"]["total"] == total


async def test_tasks_above_the_concurrency_are_staged_and_admitted_in_order() -> None:
    async with client_of(SandboxOptions(concurrency=1, pending_seconds=3600)) as client:
        made = [await create(client) for _ in range(3)]
        assert [task["status"] for task in made] == ["pending", "staged", "staged"]
        await client.delete(f"/api/v1/task/{made[0]['task_id']}")
        states = [task["status"] for task in await raw_tasks(client)]
        assert states == ["cancelled", "pending", "staged"]
        active = (await client.get("/account/active_tasks")).json()["data"]["flux"]
        assert (active["staged_count"], active["pending_count"], active["processing_count"]) == (1, 1, 0)
        assert len(active["active_tasks"]) == 2
        await client.post("/sandbox/options", json={"concurrency": None})
        assert [task["status"] for task in await raw_tasks(client)][2] == "pending"


@pytest.mark.parametrize(("submit", "status"), [("refuse", 400), ("unauthorized", 401), ("error", 500)])
async def test_a_refused_create_makes_nothing(client: httpx.AsyncClient, submit: str, status: int) -> None:
    answer = await client.post("/api/v1/task", json=body(submit=submit))
    assert (answer.status_code, answer.json()["code"]) == (status, status)
    assert await raw_tasks(client) == []


async def test_a_create_with_a_nonsense_answer_makes_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/task", json=body(submit="nonsense"))
    assert (answer.status_code, answer.text[:6]) == (200, "<html>")
    assert await raw_tasks(client) == []


async def test_a_busy_provider_accepts_the_create_after_the_configured_failures(client: httpx.AsyncClient) -> None:
    busy = body(submit="rate_limited", submit_failures=2, retry_after=7, key="k")
    answers = [await client.post("/api/v1/task", json=busy) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"
    down = body(submit="unavailable")
    assert [(await client.post("/api/v1/task", json=down)).status_code for _ in range(2)] == [503, 200]


async def test_a_create_answered_with_bad_gateway_makes_the_task(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/task", json=body(submit="bad_gateway"))).status_code == 502
    assert len(await raw_tasks(client)) == 1


async def test_a_hanging_create_is_answered_after_the_delay(client: httpx.AsyncClient) -> None:
    assert (await create(client, submit="hang", hang_seconds=0.01))["status"] == "pending"


async def test_without_a_transport_a_cut_create_has_an_incomplete_answer(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("/api/v1/task", json=body(submit="cut"))
    assert len(await raw_tasks(client)) == 1


@pytest.mark.parametrize(
    ("poll", "status"), [("not_found", 404), ("error", 500), ("rate_limited", 429), ("nonsense", 200)]
)
async def test_polls_fail_and_then_succeed(client: httpx.AsyncClient, poll: str, status: int) -> None:
    task = await create(client, poll=poll, poll_failures=1)
    first = await client.get(f"/api/v1/task/{task['task_id']}")
    assert first.status_code == status
    assert ("retry-after" in first.headers) == (poll == "rate_limited")
    assert (await client.get(f"/api/v1/task/{task['task_id']}")).json()["data"]["task_id"] == task["task_id"]


async def test_a_hanging_poll_is_answered_after_the_delay(client: httpx.AsyncClient) -> None:
    task = await create(client, poll="hang", hang_seconds=0.01)
    assert (await client.get(f"/api/v1/task/{task['task_id']}")).status_code == 200


async def test_an_outage_is_turned_on_and_off(client: httpx.AsyncClient) -> None:
    task = await create(client)
    outages = {"submit_status": 503, "poll_status": 429, "cancel_status": 503}
    switched = await client.post("/sandbox/options", json=outages)
    assert (switched.json()["submit_status"], "api_key" in switched.json()) == (503, False)
    assert (await client.post("/api/v1/task", json=body())).status_code == 503
    assert (await client.get(f"/api/v1/task/{task['task_id']}")).headers["retry-after"] == "1"
    assert (await client.delete(f"/api/v1/task/{task['task_id']}")).status_code == 503
    await client.post("/sandbox/options", json=dict.fromkeys(outages))
    await create(client)
    assert len(await raw_tasks(client)) == 2


@pytest.mark.parametrize("patch", ['{"nothing": 1}', '{"seed": "x"}', "[]", "{"])
async def test_invalid_options_are_refused(client: httpx.AsyncClient, patch: str) -> None:
    assert (await client.post("/sandbox/options", content=patch)).status_code == 400


async def test_a_status_can_be_forced(client: httpx.AsyncClient) -> None:
    task = (await finished(client, outcome="never"))["data"]
    advance = f"/sandbox/tasks/{task['task_id']}/advance"
    address = f"/api/v1/task/{task['task_id']}"
    await client.post(advance, json={"status": "retry"})
    assert (await client.get(address)).json()["data"]["status"] == "retry"
    await client.post(advance, json={"status": "failed", "error": {"message": "by hand"}})
    assert (await client.get(address)).json()["data"]["error"]["message"] == "by hand"
    await client.post(advance, json={"status": "completed"})
    completed = (await client.get(address)).json()["data"]
    assert (completed["status"], completed["error"]["code"]) == ("completed", 0)
    assert completed["output"]["image_url"]
    await client.post(advance, json={"status": "completed", "output": {"image_url": "http://x/y.png"}})
    assert (await client.get(address)).json()["data"]["output"] == {"image_url": "http://x/y.png"}


async def test_an_invalid_forced_status_is_refused(client: httpx.AsyncClient) -> None:
    task = await create(client)
    assert (await client.post("/sandbox/tasks/unknown/advance", json={})).status_code == 404
    for step in ({}, {"status": 1}, {"status": "failed", "error": {"code": "x"}}, {"status": "x", "y": 1}):
        answer = await client.post(f"/sandbox/tasks/{task['task_id']}/advance", json=step)
        assert answer.status_code == 400, step


async def test_stats_count_creates_polls_and_requests(client: httpx.AsyncClient) -> None:
    config = {"webhook_config": {"endpoint": "http://127.0.0.1:9/h", "secret": "s"}}
    task = await create(client, config=config, webhook="lost", outcome="never", pending_seconds=3600)
    await create(client, config=config, webhook="lost", outcome="never", pending_seconds=3600)
    await client.get(f"/api/v1/task/{task['task_id']}")
    stats = (await client.get("/sandbox/stats")).json()
    assert stats["created"] == 2
    assert stats["by_endpoint"] == {"http://127.0.0.1:9/h": 2}
    assert stats["polls"] == stats["requests"]["GET /api/v1/task/{task_id}"] == 1
    assert stats["requests"]["POST /api/v1/task"] == 2
    assert set(stats["notices"]) == {"sent", "lost", "acknowledged", "failed", "given_up", "in_flight"}


async def test_raw_tasks_contain_no_secret(client: httpx.AsyncClient) -> None:
    await create(client, config={"webhook_config": {"endpoint": "", "secret": "planted"}})
    assert "planted" not in (await client.get("/sandbox/tasks")).text


FAMILIES_WITH_FILES = ["kling", "luma", "music-s", "music-u", "Qubico/trellis", "midjourney", "Qubico/tts", "hailuo"]


@pytest.mark.parametrize("model", FAMILIES_WITH_FILES)
async def test_every_url_of_an_output_is_a_file_of_its_type(client: httpx.AsyncClient, model: str) -> None:
    task = (await finished(client, model=model))["data"]
    urls = set(re.findall(r"http://sandbox/files/[^'\"]+", str(task["output"])))
    types = {"mp4": "video/mp4", "png": "image/png", "mp3": "audio/mpeg", "glb": "model/gltf-binary"}
    assert urls
    for url in urls:
        served = await client.get(url)
        assert served.headers["content-type"] == types[url.rpartition(".")[2]]
        assert served.content != b"sandbox"


async def test_a_family_reports_in_its_own_words(client: httpx.AsyncClient) -> None:
    wan, sora = await finished(client, model="Wan"), await finished(client, model="sora2")
    assert (wan["code"], wan["data"]["status"]) == (0, "Completed")
    assert (sora["code"], sora["data"]["status"]) == (200, "success")
    plain = await finished(client, model="Wan", status_case="lower", code=200, success_word="done")
    assert (plain["code"], plain["data"]["status"]) == (200, "done")


async def test_a_refusal_may_come_with_status_200(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/task", json=body(submit="refuse_in_200"))
    assert (answer.status_code, answer.json()["code"]) == (200, 1102)
    assert await raw_tasks(client) == []


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        ("bom", lambda content: content.startswith(b"\xef\xbb\xbf{")),
        ("nan", lambda content: b'"note": NaN' in content),
        ("surrogate", lambda content: b"cut \\ud83d" in content),
        ("bad_byte", lambda content: b"caf\xe9" in content),
        ("utf16", lambda content: content[:2] in (b"\xff\xfe", b"\xfe\xff")),
    ],
)
async def test_a_body_can_be_in_a_form_that_strict_readers_refuse(
    client: httpx.AsyncClient, form: str, fault: Callable[[bytes], bool]
) -> None:
    answer = await client.post("/api/v1/task", json=body(body=form, outcome="never"))
    assert fault(answer.content)
    [task] = await raw_tasks(client)
    assert fault((await client.get(f"/api/v1/task/{task['task_id']}")).content)


async def test_one_such_item_is_in_the_history_as_well(client: httpx.AsyncClient) -> None:
    await create(client)
    assert b'"note"' not in (await client.get("/api/open/tasks/histories")).content
    await client.post("/api/v1/task", json=body(body="bad_byte"))
    assert b"caf\xe9" in (await client.get("/api/open/tasks/histories")).content


async def test_a_compressed_body_says_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/task", json=body(body="gzip"))
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["code"] == 200


async def test_files_have_the_content_of_their_media_type(client: httpx.AsyncClient) -> None:
    image = await client.get("/files/x.png", headers={"x-api-key": ""})
    assert image.headers["content-type"] == "image/png"
    assert image.content.startswith(b"\x89PNG")
    assert (await client.get("/files/x.mp4")).headers["content-type"] == "video/mp4"
    assert (await client.get("/files/x.mp3")).headers["content-type"] == "audio/mpeg"
