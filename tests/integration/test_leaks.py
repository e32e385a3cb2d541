"""No secret leaks: after a scenario with every kind of failure, the secrets are searched for everywhere."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response

import models
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.sandbox import SandboxOptions
from receiver.serving.master_keys import master_keys
from tests.fakes.inbound import hook_secret, notice, post
from tests.fakes.rows import change, eventually, select
from tests.fakes.subscriber import Reply
from tests.fakes.world import API_KEY, PROVIDER_KEY, ProcessWorld, in_processes

SHARED = "shared-secret-4711-for-tasks-of-elsewhere"
CLIENTS = "clients-own-secret-0815"
CHOSEN = "chosen-for-pi-secret-2342"
PLAIN = "registered-piapi-secret-9999"
REPLACED = "replaced-by-patch-secret-1234"
SETTINGS: dict[str, Any] = {
    "poll_first_seconds": "0.3",
    "poll_max_seconds": "1",
    "submission_unknown_seconds": "1",
    "piapi_webhook_secret": SHARED,
    "retry_schedule": "0,0.1,0.1",
    "delivery_timeout_seconds": "2",
}
PROVIDER = SandboxOptions(duration=0.05, pending_seconds=0.0, webhook_retry_seconds=0.1)
SCRIPTS: list[dict[str, Any]] = [
    *({"submit": behaviour} for behaviour in ("refuse", "unauthorized", "error", "nonsense", "bad_gateway", "cut")),
    *({"webhook": behaviour} for behaviour in ("twice", "reordered", "wrong_secret", "not_json", "too_large", "lost")),
    *({"outcome": outcome} for outcome in ("failed", "cancelled", "completed_with_error", "failed_then_completed")),
    *({"poll": behaviour, "webhook": "lost"} for behaviour in ("error", "rate_limited", "nonsense", "not_found")),
    {"shape": "old_envelope"},
    {"input_as_string": True},
    {"progress": 2, "logs": 2},
]


class LeakScenario:
    """A service under every kind of failure, with every response that it gave and every secret that was used."""

    def __init__(self, world: ProcessWorld) -> None:
        self.world = world
        self.answers: list[httpx.Response] = []
        self.secrets = {
            "the provider's key": PROVIDER_KEY,
            "the admin key": API_KEY,
            "the shared secret": SHARED,
            "the client's secret": CLIENTS,
            "the secret chosen for pi": CHOSEN,
            "the secret chosen for piapi": PLAIN,
            "a replaced secret": REPLACED,
            **{f"master key {number}": key for number, key in enumerate(master_keys(world.settings))},
        }
        world.api.event_hooks["response"].append(self._keep)
        world.provider.event_hooks["response"].append(self._keep)

    async def _keep(self, answer: httpx.Response) -> None:
        await answer.aread()
        if str(answer.url).startswith(self.world.base):
            self.answers.append(answer)

    async def register(self) -> None:
        """Register one of each kind, and show, change and list them; make, use and revoke keys."""
        world, base = self.world, self.world.subscriber.base
        made = await world.webhook(endpoint_url=f"{base}/standard", event_types=["task.*"])
        self.secrets["the secret made for standard"] = made["secret"].removeprefix("whsec_")
        await world.webhook(endpoint_url=f"{base}/pi", secret=CHOSEN)
        plain = await world.webhook(endpoint_url=f"{base}/piapi", secret=REPLACED, format="piapi")
        await world.api.patch(f"/api/v1/webhooks/{plain['id']}", json={"secret": PLAIN})
        for body in ({"secret": [PLAIN]}, {"secret": "short"}, {"secret": f"{PLAIN}\n"}):
            await world.api.patch(f"/api/v1/webhooks/{plain['id']}", json=body)
        for scope in ("admin", "read"):
            key = (await world.api.post("/api/v1/keys", json={"name": "k", "scope": scope})).json()["data"]
            self.secrets[f"a {scope} key"] = key["key"]
            await world.api.get("/api/v1/keys", headers={"x-api-key": key["key"]})
            await world.api.delete(f"/api/v1/keys/{key['id']}")
            await world.api.get("/api/v1/keys", headers={"x-api-key": key["key"]})

    async def work(self) -> list[str]:
        """Create tasks with every kind of failure; return their ids when all have ended."""
        config = {"webhook_config": {"endpoint": f"{self.world.subscriber.base}/callback", "secret": CLIENTS}}
        creates = (self.world.create({**script, "key": new_id()}, config=config) for script in SCRIPTS)
        await asyncio.gather(*creates)
        await self.world.create(config={"webhook_config": {"endpoint": "ftp://x", "secret": CLIENTS}})
        await self.world.create(config={"webhook_config": {"endpoint": 5, "secret": [CLIENTS]}})
        task_ids = [row["uid"] for row in select(self.world, "SELECT uid FROM task ORDER BY uid")]
        for task_id in task_ids:
            self.secrets[f"the hook secret of {task_id}"] = hook_secret(self.world, task_id)
            await self.world.ended(task_id)
        return task_ids

    def completed(self) -> str:
        """Return the id of a task that the provider knows, so that what is posted for it is read."""
        found = select(self.world, "SELECT uid FROM task WHERE status = 'completed' ORDER BY uid LIMIT 1")
        return str(found[0]["uid"])

    async def report(self, task_id: str) -> None:
        """Post valid and invalid webhooks that echo the secret wherever a provider could."""
        world, secret = self.world, hook_secret(self.world, task_id)
        provider_id = (await world.task(task_id))["provider_task_id"]
        echo = {"config": {"webhook_config": {"endpoint": "https://x", "secret": secret}}}
        for content in _malformed(secret):
            await post(world, task_id, content=content)
        for status in ("failed", "cancelled", "meditating"):
            await post(world, task_id, json=notice(provider_id, status, **echo, input=orjson.dumps(echo).decode()))
        await post(world, task_id, json=notice("another", "completed", **echo))
        gone = new_id()
        self.secrets["the hook secret of a deleted task"] = hook_secret(world, gone)
        for task, provider in ((task_id, provider_id), (gone, new_id()), (gone, provider_id)):
            said = f"POST /hooks failed, x-webhook-secret: {hook_secret(world, task)}"
            loose = {
                "logs": [said],
                "detail": {"request": said},
                "output": {"image_url": "https://x/i.png", "note": hook_secret(world, task)},
            }
            await post(world, task, json=notice(provider, "failed", **echo, **loose, error={"message": said}))
        for wrong in self.secrets.values():
            if wrong != secret:
                await post(world, task_id, secret=wrong, json=notice(provider_id, "failed"))
        elsewhere = notice("elsewhere-1", "completed", config={"webhook_config": {"secret": SHARED}})
        for content in (orjson.dumps(elsewhere), *_malformed(SHARED)):
            headers = {"x-webhook-secret": SHARED}
            await world.provider.post(f"{world.base}/hooks/piapi", content=content, headers=headers)

    async def break_things(self, task_id: str) -> None:
        """Make the service fail in the middle of its work, so that it logs errors."""
        world = self.world
        nested: dict[str, Any] = {}
        for _ in range(300):
            nested = {"a": nested}
        await world.create(
            config={"deep": nested, "webhook_config": {"endpoint": "http://127.0.0.1:9/", "secret": CLIENTS}}
        )
        await world.api.get("/api/v1/tasks", params={"created_after": "9999-12-31T23:59:59-23:59"})
        gone = KeyRing(["a master key that was removed"]).encrypt(CHOSEN)
        change(world, "UPDATE subscription SET secret = ? WHERE format = 'pi'", gone)
        await world.ended(await world.created())
        await world.api.get("/readyz")

    async def read_everything(self, task_ids: list[str]) -> None:
        """Request every resource that can be read."""
        for path in ("tasks", "webhooks", "keys"):
            await self.world.api.get(f"/api/v1/{path}", params={"limit": 200} if path != "keys" else None)
        for path in ("/api/open/tasks/histories?page_size=100", "/account/info", "/account/active_tasks", "/metrics"):
            await self.world.api.get(path)
        for task_id in task_ids:
            for path in ("task/{}", "tasks/{}", "tasks/{}/events"):
                await self.world.api.get(f"/api/v1/{path.format(task_id)}")

    def found_in(self, text: str | bytes) -> list[str]:
        """Return the names of the secrets that the text contains."""
        raw = text.encode() if isinstance(text, str) else text
        return [name for name, secret in self.secrets.items() if secret.encode() in raw]


@pytest.fixture(scope="module")
def scenario(backend: str, tmp_path_factory: pytest.TempPathFactory) -> LeakScenario:
    """Run one scenario for all tests of this module, which search what it left behind."""

    async def run(folder: Path) -> LeakScenario:
        async with in_processes(folder, PROVIDER, start=False, **SETTINGS) as world:
            await world.start(crash="search_at_once")
            scenario = LeakScenario(world)
            world.subscriber.answer = _echo
            await scenario.register()
            task_ids = await scenario.work()
            await scenario.report(scenario.completed())
            await eventually(world, "SELECT * FROM delivery WHERE status = 'pending'", lambda rows: not rows, 20)
            await scenario.read_everything(task_ids)
            await scenario.break_things(task_ids[0])
            await world.kill()
            return scenario

    return asyncio.run(run(tmp_path_factory.mktemp("scenario")))


def test_no_row_holds_a_secret(scenario: LeakScenario) -> None:
    found = {
        (table, column, name)
        for table in models.metadata.tables
        for row in select(scenario.world, f"SELECT * FROM {table}")
        for column, value in row.items()
        for name in scenario.found_in(str(value))
    }
    assert not found


@pytest.mark.sqlite_only("its files")
def test_no_file_but_the_key_file_holds_a_secret(scenario: LeakScenario) -> None:
    files = [path for path in scenario.world.folder.iterdir() if path.is_file()]
    assert {"ringback.db", "serve.log"} <= {path.name for path in files}
    found = {path.name: scenario.found_in(path.read_bytes()) for path in files if path.name != "ringback.db.key"}
    assert not any(found.values()), found
    assert (scenario.world.folder / "ringback.db.key").stat().st_mode & 0o077 == 0


def test_no_log_record_holds_a_secret(scenario: LeakScenario) -> None:
    log = scenario.world.log()
    assert "meditating" in log
    assert [line[:300] for line in log.splitlines() if scenario.found_in(line)] == []


def test_no_response_shows_a_secret_except_once_when_it_is_created(scenario: LeakScenario) -> None:
    once = {"/api/v1/webhooks": "the secret made for standard", "/api/v1/keys": " key"}
    assert {answer.status_code for answer in scenario.answers} >= {200, 400, 401, 403}
    for answer in scenario.answers:
        shown = once.get(answer.url.path, "-") if answer.request.method == "POST" else "-"
        found = scenario.found_in(answer.content + repr(answer.headers).encode())
        assert [name for name in found if not name.endswith(shown)] == [], (answer.request.method, answer.url)


def test_no_delivery_holds_a_secret_except_its_own_endpoints_header(scenario: LeakScenario) -> None:
    own = {"/callback": CLIENTS, "/piapi": PLAIN}
    assert {each.path for each in scenario.world.subscriber.received} == {
        "/standard",
        "/pi",
        "/piapi",
        "/callback",
    }
    for received in scenario.world.subscriber.received:
        assert received.headers.get("x-webhook-secret") == own.get(received.path)
        others = {name: value for name, value in received.headers.items() if name != "x-webhook-secret"}
        assert scenario.found_in(received.body + repr(others).encode()) == [], received.path


def _malformed(secret: str) -> list[bytes]:
    return [
        b"<html>",
        f'{{"config": {{"webhook_config": {{"secret": "{secret}"'.encode(),
        f"secret={secret}; upstream error".encode(),
        f"<p>POST /hooks: X-Webhook-Secret: {secret}</p>".encode(),
        f'"the secret was {secret}"'.encode(),
        orjson.dumps({"config": {"webhook_config": {"secret": secret}}}),
    ]


def _echo(number: int, request: Request) -> Reply:
    """Respond as a subscriber in debug mode would: with all headers that were sent, sometimes with an error status."""
    return Response(repr(dict(request.headers)), 500 if number % 4 == 0 else 200)
