"""Three subscribers that receive the end of every task, one in each format, each verified by code that is not ours."""

import base64
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from models import TERMINAL
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.verifiers import verify_pi, verify_standard
from tests.fakes.world import World

STANDARD, PI, CALLBACK = "/standard", "/pi", "/callback"
PI_SECRET = "whsec_" + base64.b64encode(b"a secret that a client of Pi's chose").decode()
CALLBACK_SECRET = "a-secret-of-the-clients-own"


class VerifiedSubscribers:
    """The three subscribers, at three paths of the world's subscriber."""

    def __init__(self, world: World, standard_secret: str) -> None:
        self._world = world
        self._standard_secret = standard_secret
        self._read = 0
        self._ends: dict[str, dict[str, set[str]]] = {path: defaultdict(set) for path in (STANDARD, PI, CALLBACK)}

    @classmethod
    async def register(cls, world: World) -> "VerifiedSubscribers":
        """Register two of them as webhooks; the third is the callback in each task's `config`."""
        base = world.subscriber.base
        standard = await world.webhook(endpoint_url=base + STANDARD)
        pi = await world.webhook(endpoint_url=base + PI, secret=PI_SECRET)
        assert (standard["format"], pi["format"]) == ("standard", "pi")
        return cls(world, standard["secret"])

    @property
    def config(self) -> dict[str, Any]:
        """A task's `config`, with the third subscriber as the client's own callback."""
        return {"webhook_config": {"endpoint": self._world.subscriber.base + CALLBACK, "secret": CALLBACK_SECRET}}

    async def until_notified(self, task_ids: Collection[str], seconds: float = 30) -> None:
        """Wait until all three have accepted the end of each task. Raises AssertionError that lists what is missing."""
        try:
            await self._world.subscriber.until(lambda received: self._note_ends(received, task_ids), seconds)
        except TimeoutError:
            missing = {path: [each for each in task_ids if not known[each]] for path, known in self._ends.items()}
            raise AssertionError(f"ends that were not delivered: {missing}") from None

    async def check(self, task_ids: Collection[str], *, repeats: bool = False) -> None:
        """Check that each delivery verifies and that each end has one event id at all three.

        Without `repeats`, also check that no event was accepted twice.
        """
        for received in self._world.subscriber.received:
            self._verify(received)
        for task_id in task_ids:
            history = [event["id"] for event in await self._world.events(task_id) if event["type"] in _ENDS]
            assert len(history) == 1, history
            for path, known in self._ends.items():
                assert known[task_id] == set(history), path
        if not repeats:
            accepted = [(received.path, received.event_id) for received in self._world.subscriber.accepted]
            assert len(accepted) == len(set(accepted))

    def _note_ends(self, received: list[ReceivedDelivery], task_ids: Collection[str]) -> bool:
        for each in received[self._read :]:
            ended = _ended(each) if each.status < 300 else None
            if ended is not None:
                self._ends[each.path][ended].add(each.event_id)
        self._read = len(received)
        return all(known[task_id] for known in self._ends.values() for task_id in task_ids)

    def _verify(self, received: ReceivedDelivery) -> None:
        match received.path:
            case "/standard":
                verify_standard(self._standard_secret, received)
            case "/pi":
                verify_standard(PI_SECRET, received)
                verify_pi(PI_SECRET, received)
                assert received.headers["x-pi-event"] == received.json["type"]
                assert received.json["id"] == f"evt_pi_{received.event_id}"
            case "/callback":
                assert received.headers["x-webhook-secret"] == CALLBACK_SECRET
                assert isinstance(received.json["timestamp"], int)


_ENDS = ("task.completed", "task.failed", "task.cancelled")


def _ended(received: ReceivedDelivery) -> str | None:
    """Return the id of the task whose end a delivery reports; None if it reports no end."""
    body: Mapping[str, Any] = received.json
    if received.path == PI:
        return str(body["data"]["job"]["id"])
    task: Mapping[str, Any] = body["data"]
    return str(task["task_id"]) if task["status"] in TERMINAL else None
