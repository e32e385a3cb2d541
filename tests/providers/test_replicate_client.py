"""The unchanged `replicate` client with Ringback's address and key, and a provider of each kind behind it."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import standardwebhooks
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.prediction import Prediction
from replicate.webhook import InvalidSignatureError, Webhooks, WebhookSigningSecret

from receiver.api import replicate as dialect
from tests.fakes.replicate_client import connected
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = Any
REFS = {
    "replicate": "stability-ai/sdxl",
    "fal": "fal:fal-ai/flux%2Fdev",
    "piapi": "piapi:Qubico/flux1-schnell@txt2img",
}
"""Models as `run` takes them, which wants one slash in a name."""
MODELS = {**REFS, "fal": "fal:fal-ai/flux/dev"}
STORED = {
    "replicate": ("stability-ai/sdxl", "prediction"),
    "fal": ("fal-ai/flux/dev", "prediction"),
    "piapi": ("Qubico/flux1-schnell", "txt2img"),
}
SLOW = {"pending_seconds": 60}
each_provider = pytest.mark.parametrize("provider", REFS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only what it made."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(world: World) -> AsyncIterator[Client]:
    """A client with a key of Ringback's."""
    async with connected(world.base, API_KEY) as client:
        yield client


async def called(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Call what blocks in a thread: the service runs in this one."""
    return await asyncio.to_thread(function, *given, **named)


def asked(sandbox: Json = None) -> Json:
    return {"prompt": "a cat", **({"sandbox": sandbox} if sandbox else {})}


async def received(world: World, task_id: str, count: int) -> list[ReceivedDelivery]:
    await world.subscriber.until(lambda _: len(world.subscriber.of(task_id)) >= count)
    return world.subscriber.of(task_id)


@each_provider
async def test_run_returns_the_files(world: World, client: Client, provider: str) -> None:
    output = await called(client.run, REFS[provider], input=asked())
    (newest,) = (await world.api.get("/api/v1/tasks", params={"limit": 1})).json()["data"]["data"]
    assert (newest["provider"], newest["model"], newest["task_type"]) == (provider, *STORED[provider])
    assert output
    assert output == [each["url"] for each in newest["output"]["output_files"]]
    if provider == "replicate":
        theirs = await world.provider.get(
            f"/replicate/v1/predictions/{newest['provider_task_id']}", headers={"authorization": "Bearer any"}
        )
        assert output == theirs.json()["output"]


async def test_run_of_a_version_is_one_of_replicate(world: World, client: Client) -> None:
    version = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
    assert await client.async_run(f"stability-ai/sdxl:{version}", input=asked())
    (newest,) = (await world.api.get("/api/v1/tasks", params={"limit": 1})).json()["data"]["data"]
    assert (newest["provider"], newest["model"]) == ("replicate", version)


@each_provider
async def test_a_failing_model_raises_the_provider_s_words(client: Client, provider: str) -> None:
    with pytest.raises(ModelError, match="task failed") as caught:
        await client.async_run(REFS[provider], input=asked({"outcome": "failed"}))
    assert caught.value.prediction.status == "failed"


@each_provider
async def test_a_prediction_is_followed_to_its_end(world: World, client: Client, provider: str) -> None:
    made = await client.predictions.async_create(MODELS[provider], asked())
    assert made.status in ("starting", "processing", "succeeded")
    assert made.model == MODELS[provider]
    await made.async_wait()
    assert made.status == "succeeded"
    assert (await client.predictions.async_get(made.id)).dict() == made.dict()
    task = await world.task(made.id)
    assert (made.created_at, made.completed_at) == (task["created_at"], task["ended_at"])
    assert made.metrics is not None
    assert made.metrics["total_time"] > 0
    assert made.urls is not None
    assert (await world.api.get(made.urls["get"])).json()["output"] == made.output


@each_provider
async def test_a_create_waits_for_the_end_as_long_as_it_is_asked_to(client: Client, provider: str) -> None:
    create = client.models.predictions.async_create
    assert (await create(REFS[provider], asked(), wait=True)).status == "succeeded"
    waited = await create(REFS[provider], asked({"duration": 60, "pending_seconds": 0}), wait=1)
    assert (waited.status, waited.output) == ("starting", None)


@each_provider
async def test_a_prediction_is_cancelled_at_its_provider(world: World, client: Client, provider: str) -> None:
    made = await called(client.predictions.create, MODELS[provider], asked(SLOW))
    await called(made.cancel)
    assert made.status == "canceled"
    assert (await world.task(made.id))["status"] == "cancelled"
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_cancel(made.id)
    assert (caught.value.status, caught.value.title) == (409, "Conflict")


async def test_a_prediction_that_runs_is_cancelled_too(world: World, client: Client) -> None:
    running = asked({"pending_seconds": 0, "duration": 60})
    made = await client.predictions.async_create(MODELS["replicate"], running)
    async with asyncio.timeout(30):
        while made.status != "processing":
            await world.api.post(f"/api/v1/tasks/{made.id}/refresh")
            await made.async_reload()
    assert (await client.predictions.async_cancel(made.id)).status == "canceled"
    assert (await world.task(made.id))["status"] == "cancelled"


async def test_the_list_leads_from_page_to_page(world: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [(await client.predictions.async_create(MODELS["piapi"], asked(SLOW))).id for _ in range(5)]
    monkeypatch.setattr(dialect, "PAGE", 2)
    page = await client.predictions.async_list()
    found = [each.id for each in page.results]
    while page.next and len(found) < len(made):
        page = await client.predictions.async_list(cursor=page.next)
        found += [each.id for each in page.results]
    assert found[: len(made)] == made[::-1]
    since = (await world.task(made[3]))["created_at"]
    newer = await world.api.get("/v1/predictions", params={"created_after": since})
    assert [each["id"] for each in newer.json()["results"]] == [made[4], made[3]]


@each_provider
async def test_a_webhook_has_the_prediction_and_replicate_s_client_validates_it(
    world: World, client: Client, provider: str
) -> None:
    given: Json = {"webhook": f"{world.subscriber.base}/hook", "webhook_events_filter": ["start", "completed"]}
    made = await client.predictions.async_create(MODELS[provider], asked(), **given)
    deliveries = await received(world, made.id, 2)
    secret = await client.webhooks.default.async_secret()
    for each in deliveries:
        Webhooks.validate(headers=each.headers, body=each.body.decode(), secret=secret, tolerance=60)
        assert standardwebhooks.Webhook(secret.key).verify(each.body, each.headers) == each.json
        Prediction(**each.json)
    last = max(deliveries, key=lambda each: each.json["status"] == "succeeded").json
    assert last == (await world.api.get(f"/v1/predictions/{made.id}")).json()
    changed = deliveries[0].body.replace(b"succeeded", b"failed") + b" "
    with pytest.raises(InvalidSignatureError):
        Webhooks.validate(headers=deliveries[0].headers, body=changed.decode(), secret=secret)


@pytest.mark.parametrize(
    ("given", "outcome", "statuses"),
    [
        ({"webhook": "/a"}, "completed", ["succeeded"]),
        ({"webhook": "/b"}, "failed", ["failed"]),
        ({"webhook": "/c", "webhook_events_filter": ["output"]}, "completed", ["succeeded"]),
        ({"webhook_completed": "/d"}, "failed", ["failed"]),
    ],
    ids=["default", "default of a failure", "output", "webhook_completed"],
)
async def test_a_webhook_gets_the_events_that_it_asks_for(
    world: World, client: Client, given: Json, outcome: str, statuses: list[str]
) -> None:
    named: Json = {
        name: f"{world.subscriber.base}{value}" if isinstance(value, str) else value for name, value in given.items()
    }
    made = await client.predictions.async_create(MODELS["fal"], asked({"outcome": outcome}), **named)
    await received(world, made.id, len(statuses))
    listed = (await world.api.get("/api/v1/deliveries", params={"task_id": made.id})).json()["data"]["data"]
    assert len(listed) == len(statuses)
    assert [each.json["status"] for each in world.subscriber.of(made.id)] == statuses


async def test_a_registered_webhook_may_have_the_form_of_a_prediction(world: World) -> None:
    url = f"{world.subscriber.base}/registered"
    webhook = await world.webhook(endpoint_url=url, format="replicate", event_types=["task.completed", "run.*"])
    task_id = await world.created()
    await world.subscriber.until(lambda all_: any(each.path == "/registered" for each in all_))
    (delivery,) = [each for each in world.subscriber.of(task_id) if each.path == "/registered"]
    secret = WebhookSigningSecret(key=webhook["secret"])
    Webhooks.validate(headers=delivery.headers, body=delivery.body.decode(), secret=secret)
    assert (delivery.json["id"], delivery.json["status"]) == (task_id, "succeeded")
    run = {"steps": [{"id": "a", "action": "m:t", "input": {}}]}
    assert (await world.api.post("/api/v1/runs", json=run)).status_code == 202
    await world.subscriber.until(lambda all_: any(b"run.created" in each.body for each in all_))
    assert (await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")).status_code == 200


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("fall:fal-ai/flux/dev", "version: no provider is named 'fall'; use fal"),
        ("piapi:Qubico/flux1-schnell", "needs a task type after an @"),
        ("piapi:Qubico/flux1-schnell@", "needs a task type after an @"),
        ("fal:", "must name a model"),
        ("fal:@queue", "must name a model"),
        ("no model", "model must be owner/name"),
    ],
)
async def test_a_model_that_is_not_known_is_a_problem_that_says_why(client: Client, model: str, words: str) -> None:
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_create(model, asked())
    assert (caught.value.status, caught.value.title) == (422, "Input validation failed")
    assert words in str(caught.value.detail)


@pytest.mark.parametrize(("submit", "status"), [("refuse", 422), ("refuse_in_200", 402), ("unauthorized", 502)])
async def test_a_refusal_of_the_provider_is_replicate_s_own_problem(client: Client, submit: str, status: int) -> None:
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_create(MODELS["replicate"], asked({"submit": submit}))
    assert caught.value.status == status
    assert caught.value.detail


async def test_a_problem_of_replicate_is_passed_on_as_it_came(world: World) -> None:
    asked_for = {"input": asked({"submit": "refuse"}), "version": MODELS["replicate"]}
    answer = await world.api.post("/v1/predictions", json=asked_for)
    assert answer.json() == {"title": "Error", "detail": "the prompt was refused", "status": 422}


async def test_what_is_to_be_streamed_is_refused_before_it_is_paid_for(world: World, client: Client) -> None:
    before = (await client.predictions.async_list()).results
    with pytest.raises(ReplicateError, match="stream: nothing is streamed"):
        await called(lambda: list(client.stream(REFS["replicate"], input=asked())))
    assert (await client.predictions.async_list()).results[:1] == before[:1]


async def test_who_uploads_a_file_is_told_how_to_give_it(client: Client) -> None:
    with pytest.raises(ReplicateError, match="give their URLs in input, or the files themselves") as caught:
        await client.async_run(REFS["fal"], input={"image": io.BytesIO(b"a picture")})
    assert (caught.value.status, caught.value.title) == (404, "Not Found")
    given = {"image": io.BytesIO(b"a picture")}
    made = await client.models.predictions.async_create(REFS["fal"], given, file_encoding_strategy="base64")
    assert made.input == {"image": "data:application/octet-stream;base64,YSBwaWN0dXJl"}


@each_provider
async def test_a_refusal_of_any_provider_is_a_problem(client: Client, provider: str) -> None:
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_create(MODELS[provider], asked({"submit": "refuse"}))
    assert caught.value.status is not None
    assert 400 <= caught.value.status < 500
    assert caught.value.title
    assert caught.value.detail


async def test_wrong_requests_are_problems_as_described(world: World, client: Client) -> None:
    create = "/v1/models/stability-ai/sdxl/predictions"
    wrong = [
        await world.api.post("/v1/predictions", json={"input": {}}),
        await world.api.post(create, json={"input": {}, "model": "m"}),
        await world.api.post(create, json={"input": {}, "webhook": "ftp://example.com"}),
        await world.api.post(create, json={"input": {}}, headers={"cancel-after": "1m"}),
        await world.api.post(create, content=b"{"),
        await world.api.post(create, json={"input": {}, "webhook": "https://a.b", "webhook_completed": "https://c.d"}),
        await world.api.get("/v1/predictions", params={"cursor": "?"}),
    ]
    assert [each.status_code for each in wrong] == [422] * len(wrong)
    assert {each.headers["content-type"] for each in wrong} == {"application/problem+json"}
    named = ["version", "model", "webhook", "Cancel-After", "the body is not JSON", "webhook_completed", "cursor"]
    details = [each.json()["detail"] for each in wrong]
    assert [detail for detail, name in zip(details, named, strict=True) if not detail.startswith(name)] == []
    assert (await world.api.get("/v1/predictions/nothing/at/all")).json()["status"] == 404
    async with connected(world.base, "rb_unknown_8Zs1Kq7v") as unknown:
        with pytest.raises(ReplicateError, match="Unauthenticated"):
            await unknown.accounts.async_current()
    assert (await client.accounts.async_current()).name == "default"


async def test_another_organization_sees_neither_predictions_nor_the_secret(world: World, client: Client) -> None:
    made = await client.predictions.async_create(MODELS["fal"], asked())
    answer = await world.api.post("/api/v1/organizations", json={"name": "other"})
    mine = await client.webhooks.default.async_secret()
    async with connected(world.base, answer.json()["data"]["key"]) as other:
        with pytest.raises(ReplicateError) as caught:
            await other.predictions.async_get(made.id)
        assert caught.value.status == 404
        assert (await other.predictions.async_list()).results == []
        assert (await other.webhooks.default.async_secret()).key != mine.key


async def test_a_deployment_is_one_of_replicate(world: World, client: Client) -> None:
    made = await client.deployments.predictions.async_create("acme/upscaler", asked())
    await made.async_wait()
    assert made.status == "succeeded"
    task = await world.task(made.id)
    assert (task["provider"], task["model"]) == ("replicate", "deployments/acme/upscaler")
