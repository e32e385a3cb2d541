"""The forms of results and failures, where they come in: the answer to a create call, a poll, a webhook.

The provider here answers what the task's own input says.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.domain.ids import new_id
from tests.fakes.inbound import notice, post, report
from tests.fakes.servers import served
from tests.fakes.world import FAST_POLLING, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

CDN = "https://cdn.example.com/"
AUDIO, VIDEO, IMAGE, MESH = CDN + "a.mp3", CDN + "v.mp4", CDN + "i.png", CDN + "m.glb"


def scripted_provider() -> Starlette:
    """Return a provider. A create is answered with its `input.answer`, polls with the task of its `input.then`."""
    tasks: dict[str, Any] = {}

    async def create(request: Request) -> Response:
        given = orjson.loads(await request.body())["input"]
        task_id = given.get("task_id", new_id())
        tasks[str(task_id)] = {"task_id": task_id, **given.get("then", {"status": "pending"})}
        answer = given.get("answer") or {"code": 200, "data": {"task_id": task_id, "status": "pending"}}
        return Response(orjson.dumps(answer), given.get("http_status", 200), media_type="application/json")

    async def poll(request: Request) -> Response:
        body = {"code": 200, "data": tasks[request.path_params["task_id"]], "message": "success"}
        return Response(orjson.dumps(body), media_type="application/json")

    routes = [
        Route("/api/v1/task", create, methods=["POST"]),
        Route("/api/v1/task/{task_id}", poll, methods=["GET"]),
    ]
    return Starlette(routes=routes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world with the scripted provider for all tests of this module."""
    async with served(scripted_provider()) as url:
        folder = tmp_path_factory.mktemp("world")
        async with in_process(folder, piapi_base_url=url, **FAST_POLLING) as world:
            yield world


RESULTS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("luma", {"output": {"video": None, "video_raw": {"url": VIDEO}}}, {"video_url": VIDEO}, VIDEO),
    ("suno", {"output": {"clips": {"c": {"audio_url": AUDIO, "image_url": IMAGE}}}}, {"audio_url": AUDIO}, AUDIO),
    ("legacy suno", {"clips": {"c": {"audio_url": AUDIO}}, "title": "S"}, {"title": "S", "audio_url": AUDIO}, AUDIO),
    ("udio", {"output": {"songs": [{"song_path": AUDIO, "image_path": IMAGE}]}}, {"audio_url": AUDIO}, AUDIO),
    ("trellis", {"output": {"model_file": MESH, "combined_video": VIDEO}}, {"video_url": VIDEO}, MESH),
    ("images", {"output": {"images": [IMAGE, IMAGE + "?2"]}}, {"image_urls": [IMAGE, IMAGE + "?2"]}, IMAGE),
    ("a URL", {"output": IMAGE}, {"image_url": IMAGE}, IMAGE),
    ("a list", {"output": [VIDEO, VIDEO + "?2"]}, {"video_url": VIDEO}, VIDEO),
    ("JSON in a text", {"output": f'{{"url": "{AUDIO}"}}'}, {"audio_url": AUDIO}, AUDIO),
    ("deep", {"output": {"a": [{"b": {"finalMovie": CDN + "x"}}]}}, {"video_url": CDN + "x"}, CDN + "x"),
    ("older envelope", {"works": [{"contentType": "audio", "resource": {"resource": AUDIO}}], "task": {"id": 4}},
     {"audio_url": AUDIO, "task": {"id": 4}}, AUDIO),
]  # fmt: skip


@pytest.mark.parametrize("case", RESULTS, ids=[case[0] for case in RESULTS])
@pytest.mark.parametrize("way", ["webhook", "poll"])
async def test_the_result_is_found_in_every_shape(
    world: World, way: str, case: tuple[str, dict[str, Any], dict[str, Any], str]
) -> None:
    _, fields, expected, main = case
    if way == "poll":
        task_id = await world.created(input={"then": {"status": "succeeded", **fields}})
        task = await world.ended(task_id)
    else:
        task_id = await world.created()
        assert (await report(world, task_id, "Finished", **fields)).status_code == 200
        task = await world.task(task_id)
    assert task["status"] == "completed"
    assert {name: task["output"].get(name) for name in expected} == expected
    assert main in [each["url"] for each in task["output"]["output_files"]]
    shown = (await world.api.get(f"/api/v1/task/{task_id}")).json()["data"]["output"]
    assert shown == task["output"]
    assert (await world.api.get(f"/api/v1/jobs/{task_id}")).json()["data"]["result_url"] == main


REASONS: list[tuple[dict[str, Any], str]] = [
    ({"error": ["content moderated", "nsfw"]}, "content moderated; nsfw"),
    ({"message": "content moderated"}, "content moderated"),
    ({"task_status_msg": "risk control"}, "risk control"),
    ({"output": {"error_messages": ["moderated"]}}, "moderated"),
    ({"error": {"code": 5, "msg": "no face"}}, "no face"),
    ({"failMsg": "flagged", "task": {"state": "gone"}}, "flagged"),
    ({"output": {"works": [{"status": "failed", "last_error": {"text": "blurred"}}]}}, "blurred"),
    ({}, "the provider gave no reason"),
]


@pytest.mark.parametrize(("fields", "message"), REASONS)
@pytest.mark.parametrize("word", ["failed", "error", "Timed Out", "REJECTED"])
async def test_the_reason_of_a_failure_is_found_and_stored(
    world: World, word: str, fields: dict[str, Any], message: str
) -> None:
    task_id = await world.created(input={"then": {"status": word, **fields}})
    task = await world.ended(task_id)
    assert (task["status"], task["error"]["message"]) == ("failed", message)
    assert (await world.api.get(f"/api/v1/jobs/{task_id}")).json()["data"]["error_log"] == message


async def test_an_error_inside_a_success_of_create_is_a_refusal_with_its_words(world: World) -> None:
    refused = {"code": 1102, "message": "account balance not enough"}
    answer = await world.create(input={"answer": refused})
    assert (answer.status_code, answer.json()) == (402, refused)
    newest = (await world.api.get("/api/v1/tasks", params={"limit": 1})).json()["data"]["data"][0]
    assert (newest["status"], newest["submission"]) == ("failed", "refused")
    assert newest["error"] == {
        "code": 402,
        "message": refused["message"],
        "raw_message": refused["message"],
        "detail": refused,
    }


async def test_the_words_of_an_answer_that_is_no_clear_refusal_stay_with_the_task(world: World) -> None:
    answer = {"code": 10000, "data": None, "message": "sensitive words, try again"}
    task = (await world.create(input={"answer": answer})).json()["data"]
    assert task["status"] == "pending"
    assert (task["error"]["code"], task["error"]["message"].endswith(answer["message"])) == (0, True)
    known = await world.task(task["task_id"])
    assert (known["submission"], known["error"]["message"]) == ("unknown", task["error"]["message"])
    assert (await post(world, task["task_id"], json=notice(new_id(), "processing"))).status_code == 200
    assert (await world.task(task["task_id"]))["error"] is None


async def test_the_fields_that_a_refusal_names_are_in_its_message(world: World) -> None:
    body = {"detail": [{"loc": ["body", "input"], "msg": "field required"}]}
    answer = await world.create(input={"answer": body, "http_status": 422})
    assert (answer.status_code, answer.json()["message"]) == (422, "body.input: field required")


async def test_a_task_whose_id_is_a_number_is_tracked(world: World) -> None:
    number = int(new_id().replace("-", "")[:12], 16)
    done = {"status": "done", "output": {"url": IMAGE}}
    task_id = await world.created(input={"task_id": number, "then": done})
    task = await world.ended(task_id)
    assert (task["status"], task["provider_task_id"]) == ("completed", str(number))


async def test_a_status_under_another_name_ends_the_task(world: World) -> None:
    task_id = await world.created(input={"then": {"task_status": "succeed", "output": {"url": IMAGE}}})
    assert (await world.ended(task_id))["status"] == "completed"


@pytest.mark.parametrize("status", [7, True, ["done"], {"is": "done"}])
async def test_a_status_of_another_type_leaves_the_task_readable(world: World, status: Any) -> None:
    task_id = await world.created()
    assert (await report(world, task_id, status, output={"url": IMAGE})).status_code == 200
    assert (await world.task(task_id))["status"] == "pending"
    await report(world, task_id, "completed", output={"url": IMAGE})
    assert (await world.task(task_id))["output"]["image_url"] == IMAGE
