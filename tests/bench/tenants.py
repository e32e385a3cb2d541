"""What one organization pays for another that does all it can to delay it, at the same service.

The quiet one creates tasks, receives webhooks of the provider, and is told of their ends. It is measured alone first,
then beside the other (`tests.bench.hostile_tenant`, a process of its own).
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from models import Scope
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.keys import insert_key, key_row
from receiver.storage.organizations import ensure_organization
from tests.bench.context import BenchContext
from tests.bench.databases import KINDS, SQLITE, Store
from tests.bench.hostile_tenant import KEY
from tests.bench.load import percentiles
from tests.bench.prepared_requests import create_one, read_response, task_id_of, webhooks
from tests.bench.processes import Service, free_port, ringback
from tests.bench.provider import KEY as PROVIDER_KEY
from tests.bench.provider import providing
from tests.bench.report import at_most
from tests.bench.seed_rows import add_pending_tasks, task_id
from tests.bench.subscriber import Subscriber, subscribing

_SECONDS = 12.0
_WARM_UP_SECONDS = 2.0
_CREATES_A_SECOND = 15.0
_WEBHOOKS_A_SECOND = 40.0
_CLOSED, _HANGING = 600, 300
"""How many of the other's webhooks point at a closed port, and how many at an endpoint that never answers."""
_THEIR_TASKS = 2_000
_HARM_BEGINS_SECONDS = 4.0
"""After this time its load is at its full height, and the service has noticed."""
_CONNECT_SECONDS = 0.1
"""How long before a request its connection is opened, which is not measured."""
_COPIED = "kind, format, event_types, secret, signature, ordered, is_active, created_at, updated_at"


@dataclass
class _Tenants:
    """A service with both organizations; `theirs` are the numbers of the other's pending tasks."""

    store: Store
    service: Service
    subscriber: Subscriber
    theirs: range

    async def measure(self, seconds: float) -> dict[str, float]:
        """Return the quiet one's 99th percentiles in milliseconds."""
        self.subscriber.reset()
        hooks = list(webhooks(add_pending_tasks(self.store, int(_WEBHOOKS_A_SECOND * seconds))))
        sent: dict[str, float] = {}

        def note(request: bytes) -> None:
            sent[task_id_of(request)] = time.perf_counter()

        creates = [create_one()] * int(_CREATES_A_SECOND * seconds)
        created, received = await asyncio.gather(
            _paced(self.service.port, creates, _CREATES_A_SECOND),
            _paced(self.service.port, hooks, _WEBHOOKS_A_SECOND, note),
        )
        while sent.keys() - self.subscriber.first_received_at.keys():
            await self.subscriber.received(self.subscriber.count + 1)
        delivered = [self.subscriber.first_received_at[uid] - at for uid, at in sent.items()]
        measured = {"create": created, "provider's webhook": received, "webhook to subscriber": delivered}
        return {name: percentiles(latencies)[1] for name, latencies in measured.items()}


async def tenants(context: BenchContext) -> None:
    """Measure an organization alone, and beside another one that does all it can to delay it (once: it takes long)."""
    for kind in KINDS:
        context.tell(f"tenants: {kind}")
        async with _tenants(context, kind) as both:
            await both.measure(_WARM_UP_SECONDS)
            alone = await both.measure(_SECONDS)
            async with _harm(both):
                beside = await both.measure(_SECONDS)
        for name, before in alone.items():
            context.report.add(f"{name}, p99 ms", kind, before, form="{:.1f}")
            context.report.add(f"  beside a hostile organization: {name}", kind, beside[name], form="{:.1f}")
            ratio, form = beside[name] / before, "{:.1f} ×"
            context.report.add(f"  against alone: {name}", kind, ratio, form=form, aim=at_most(2))


@asynccontextmanager
async def _tenants(context: BenchContext, kind: str) -> AsyncIterator[_Tenants]:
    store = await context.databases.new(kind)
    other = await _add_organization(store)
    theirs = add_pending_tasks(store, _THEIR_TASKS)
    first, last = task_id(theirs[0]), task_id(theirs[-1])
    store.execute(f"UPDATE task SET organization_id = {other} WHERE uid BETWEEN '{first}' AND '{last}'")
    async with AsyncExitStack() as resources:
        provider = await resources.enter_async_context(providing())
        subscriber = await resources.enter_async_context(subscribing())
        settings = {
            "piapi_base_url": provider.base,
            "piapi_api_key": PROVIDER_KEY,
            "provider_rate": "1000/s",
            "log_level": "error",
            "organization_limits": "",
            "key_rate": str(Settings.model_fields["key_rate"].default),
        }
        service = await resources.enter_async_context(ringback(store, settings))
        # Of the pending tasks only, which have another model than those that are created.
        uid = await service.subscribe(subscriber.url)
        _add_webhooks(store, uid, other, subscriber.base)
        yield _Tenants(store, service, subscriber, theirs)
    context.databases.drop(store)


async def _add_organization(store: Store) -> int:
    """Add another organization with its key; return its row key."""
    async with await Database.open(store.settings) as database:
        now = utc_now()
        organization = await database.writer.run(lambda tx: ensure_organization(tx, "other", now))
        await database.writer.run(lambda tx: insert_key(tx, key_row(organization, KEY, "theirs", Scope.ADMIN, now)))
    return organization


def _add_webhooks(store: Store, uid: str, organization: int, base: str) -> None:
    """Add the other's webhooks as copies of the quiet one's, for every event of a task."""
    urls = [f"http://127.0.0.1:{free_port()}/{number}" for number in range(_CLOSED)]
    urls += [f"{base}/hang"] * _HANGING
    for url in urls:
        columns = _COPIED.replace("event_types", _every_event(store))
        store.execute(
            f"INSERT INTO subscription (uid, endpoint_url, organization_id, {_COPIED}) "
            f"SELECT '{new_id()}', '{url}', {organization}, {columns} FROM subscription WHERE uid = '{uid}'"
        )


def _every_event(store: Store) -> str:
    types = """'["task.created", "task.updated", "task.completed", "task.failed"]'"""
    return types if store.kind == SQLITE else f"{types}::jsonb"


@asynccontextmanager
async def _harm(both: _Tenants) -> AsyncIterator[None]:
    """Let the other do all it can; the load ends by itself some seconds after the measurement."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.hostile_tenant",
        str(both.service.port),
        str(_SECONDS + _HARM_BEGINS_SECONDS + 2),
    ]
    command += [str(both.theirs[0]), str(both.theirs[-1])]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await asyncio.sleep(_HARM_BEGINS_SECONDS)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _paced(
    port: int, requests: Sequence[bytes], per_second: float, note: Callable[[bytes], None] = lambda _: None
) -> list[float]:
    """Send requests at a rate, whether or not earlier ones are answered; return the seconds that each took."""
    started = time.perf_counter() + _CONNECT_SECONDS

    async def send(number: int, request: bytes) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            note(request)
            writer.write(request)
            status, body = await read_response(reader)
            if status != 200:
                raise SystemExit(f"the quiet organization was refused: {status} {body.decode()}")
            return time.perf_counter() - due
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        sending = []
        for number, request in enumerate(requests):
            await asyncio.sleep(max(0.0, started + number / per_second - _CONNECT_SECONDS - time.perf_counter()))
            sending.append(group.create_task(send(number, request)))
    return [each.result() for each in sending]
