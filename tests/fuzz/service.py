"""The service that the fuzz calls: the whole application in this process, with two organizations and planted marks."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.applications import Starlette
from starlette.types import Message

from models import Scope
from receiver.app import create_app
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.sandbox import SandboxOptions, create_sandbox
from receiver.serving.master_keys import master_keys
from receiver.serving.start import ensure_keys
from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.keys import insert_key, key_row
from receiver.storage.organizations import ensure_organization
from tests.fakes import databases
from tests.fakes.servers import served
from tests.fuzz.requests import TASK, FuzzRequest, Ids

MARK = "mark-of-the-other-organization"
"""Is in everything that the other organization has. No request of the fuzz has it."""
ADMIN_KEY = "an-admin-key-for-the-fuzz-4711"
PROVIDER_KEY = "the-providers-own-key-2342"
HOOK_SECRET = "a-planted-secret-of-the-provider-8765"
WEBHOOK_SECRET = "a-planted-webhook-secret-9876"
_KEYS = {"write": "rb_write_planted_5555_key", "read": "rb_read_planted_6666_key", "other": "rb_other_planted_7777_key"}
_ANSWER_SECONDS = 60.0
PLANTED = (ADMIN_KEY, PROVIDER_KEY, HOOK_SECRET, WEBHOOK_SECRET, *_KEYS.values())
"""What may be in no answer and in no log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application answered. `is_stream`: the client left after the first part."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_stream: bool


class FuzzedService:
    """Calls the application as a server does, but without a connection."""

    def __init__(self, app: Starlette, ids: Ids, keyring: KeyRing) -> None:
        self.ids = ids
        self._keyring = keyring
        self.keys = {"admin": ADMIN_KEY, "write": _KEYS["write"], "read": _KEYS["read"]}
        self._app = app

    async def renew(self) -> None:
        """Make again what requests have removed or ended: the caller's own webhooks, tasks and so on.

        The new ids take the places of those before. Raises `AssertionError` if the service makes nothing any more.
        """
        before = (await self.asked("GET", "/api/v1/webhooks?limit=200"))["data"]
        self.ids.own.update(await self.make(ADMIN_KEY, "mine"))
        self.ids.secrets.update({uid: self._keyring.hook_secret(uid) for uid in self.ids.own["task_id"]})
        for account in (await self.asked("GET", "/api/v1/providers/piapi/accounts?limit=200"))["data"]:
            if account["name"] not in self.ids.own["account"]:
                path = f"/api/v1/providers/piapi/accounts/{account['id']}"
                await self.asked("DELETE", path, gone=404)
        for webhook in before:
            await self.asked("DELETE", f"/api/v1/webhooks/{webhook['id']}", gone=404)

    async def asked(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str = ADMIN_KEY, gone: int = 0
    ) -> dict[str, Any]:
        """Return the data of an answer that must not be an error, except of the status `gone`."""
        headers = ((b"x-api-key", key.encode()),)
        plain, _, query = path.partition("?")
        sent = b"" if body is None else orjson.dumps(body)
        answer = await self.call(FuzzRequest(method, plain, query.encode(), headers, sent, "", "127.0.0.1"))
        assert answer.status < 300 or answer.status == gone, f"{method} {path}: {answer.status} {answer.body!r}"
        return dict(orjson.loads(answer.body).get("data") or {})

    async def make(self, key: str, mark: str) -> dict[str, list[str]]:
        """Make one or two things of each kind, and return their ids."""

        async def made(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
            return await self.asked("POST", path, body, key=key)

        hook = {"endpoint_url": f"http://127.0.0.1:9/{mark}", "description": mark, "secret": WEBHOOK_SECRET}
        slow = {**hook, "rate_limit": 0.001}  # so that its replay can be cancelled as long as it was not
        webhooks = [(await made("/api/v1/webhooks", {**each, "format": "piapi"}))["id"] for each in (slow, hook)]
        task = {
            **TASK,
            "metadata": {"mark": mark},
            "input": {"prompt": mark, "sandbox": {"outcome": "never", "webhook": "lost"}},
        }
        tasks = [(await made("/api/v1/task", task))["task_id"] for _ in range(3)]
        step = {"id": "a", "action": "flux:txt2img", "input": {"prompt": mark}}
        runs = [(await made("/api/v1/runs", {"steps": [step], "metadata": {"mark": mark}}))["run_id"] for _ in range(2)]
        replay = (await made(f"/api/v1/webhooks/{webhooks[0]}/replay", {"since": 1700000000}))["id"]
        action = (await made("/api/v1/tasks/cancel", {"metadata": {"mark": f"none of {mark}"}}))["id"]
        await self._receipt(tasks[0], mark)
        receipts = (await self.asked("GET", "/api/v1/receipts?limit=3", key=key))["data"]
        named = {"name": f"a-{new_id()[-12:]}", "credentials": {"api_key": "a-key-5Hn3Qx"}}
        account = await made("/api/v1/providers/piapi/accounts", named)
        spare = (await made("/api/v1/keys", {"name": mark, "scope": "read"}))["id"]
        deliveries = (await self.asked("GET", "/api/v1/deliveries?limit=3", key=key))["data"]
        return {
            "webhook_id": webhooks,
            "task_id": tasks,
            "job_id": tasks,
            "run_id": runs,
            "replay_id": [replay],
            "bulk_action_id": [action],
            "key_id": [spare],
            "account": [account["name"], account["id"]],
            "account_id": [account["id"]],
            "delivery_id": [delivery["id"] for delivery in deliveries],
            "receipt_id": [receipt["id"] for receipt in receipts],
        }

    async def _receipt(self, task: str, mark: str) -> None:
        """Post a webhook of a task that cannot be read, as its provider would."""
        headers = ((b"x-webhook-secret", self._keyring.hook_secret(task).encode()),)
        path, body = f"/hooks/piapi/{task}", f"{mark}, no JSON".encode()
        answer = await self.call(FuzzRequest("POST", path, b"", headers, body, "", "127.0.0.1"))
        assert answer.status == 400, answer.body

    async def call(self, request: FuzzRequest) -> Answer:
        """Return the answer to a request. Raises what the application raises, and `TimeoutError`."""
        client = _Client(request.body)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote(request.raw_path),
            "raw_path": request.raw_path.encode(),
            "query_string": request.query,
            "root_path": "",
            "headers": list(request.headers),
            "client": (request.client, 40000),
            "server": ("127.0.0.1", 80),
            "extensions": {},
            "state": {},
        }
        async with asyncio.timeout(_ANSWER_SECONDS):
            await self._app(scope, client.receive, client.send)
        return client.answer


class _Client:
    def __init__(self, body: bytes) -> None:
        half = len(body) // 2
        self._parts = [body[:half], body[half:]] if half > 1000 else [body]
        self._gone = asyncio.Event()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._is_stream = False

    async def receive(self) -> Message:
        if self._parts:
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
            self._is_stream = self._headers.get("content-type", "").startswith("text/event-stream")
        else:
            self._body += message.get("body", b"")
            if self._is_stream or not message.get("more_body", False):
                self._gone.set()

    @property
    def answer(self) -> Answer:
        return Answer(self._status, self._headers, bytes(self._body), self._is_stream)


@asynccontextmanager
async def fuzzed_service(folder: Path) -> AsyncIterator[FuzzedService]:
    """Run the service on the present kind of database, with a provider on loopback."""
    options = SandboxOptions(duration=3600.0, pending_seconds=3600.0, webhook_retry_seconds=3600.0)
    async with served(create_sandbox(options)) as provider:
        settings = load_settings(
            {
                **databases.present.environment(folder),
                "RINGBACK_API_KEY": ADMIN_KEY,
                "RINGBACK_PIAPI_BASE_URL": provider,
                "RINGBACK_PIAPI_API_KEY": PROVIDER_KEY,
                "RINGBACK_PIAPI_WEBHOOK_SECRET": HOOK_SECRET,
                "RINGBACK_PROVIDER_REPLICATE_BASE_URL": f"{provider}/replicate",
                "RINGBACK_PROVIDER_REPLICATE_API_KEY": PROVIDER_KEY,
                "RINGBACK_PROVIDER_RATE": "1000/s",
                "RINGBACK_KEY_RATE": "1000000/s",
                "RINGBACK_ALLOWED_TARGETS": "127.0.0.1",
                "RINGBACK_RETRY_SCHEDULE": "0",
                "RINGBACK_POLL_FIRST_SECONDS": "3600",
                "RINGBACK_POLL_MAX_SECONDS": "3600",
                "RINGBACK_SUBMIT_WAIT_SECONDS": "1",
                "RINGBACK_RETENTION_DAYS": "0",
            },
            env_file=None,
        )
        keys = master_keys(settings)
        await _make_keys(settings, keys)
        app = create_app(settings, keys)
        async with app.router.lifespan_context(app):
            yield await _planted(app, keys)


async def _make_keys(settings: Settings, keys: list[str]) -> None:
    async with await Database.open(settings) as database:
        await ensure_keys(database, settings, KeyRing(keys))

        async def work(tx: Any) -> None:
            now = utc_now()
            own, other = await ensure_organization(tx, "default", now), await ensure_organization(tx, "other", now)
            for name, organization, scope in (("write", own, Scope.WRITE), ("read", own, Scope.READ)):
                await insert_key(tx, key_row(organization, _KEYS[name], name, scope, now))
            await insert_key(tx, key_row(other, _KEYS["other"], MARK, Scope.ADMIN, now))

        await database.writer.run(work)


async def _planted(app: Starlette, keys: list[str]) -> FuzzedService:
    """Make the same things for both organizations, marked for the other one; return the service with their ids."""
    service = FuzzedService(app, Ids({}, {}, {"": HOOK_SECRET}), KeyRing(keys))
    other = await service.make(_KEYS["other"], MARK)
    others = (await service.asked("GET", "/api/v1/organization", key=_KEYS["other"]))["id"]
    spare = (await service.asked("POST", "/api/v1/organizations", {"name": "spare"}))["id"]
    service.ids = Ids({"organization_id": [spare]}, {**other, "organization_id": [others]}, service.ids.secrets)
    await service.renew()
    return service
